"""Training by row gives what training whole tables gives: against PyTorch's dense optimisers, for every model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numba
import numpy as np
import pytest
import torch
from conformance import CARDS, TRAINED, small
from hypothesis import example, given, settings
from hypothesis import strategies as st
from narrow import built, not_none
from torch import Tensor, nn
from toy import toy_data

from imgrec_lib.compiled import compiled
from imgrec_lib.data.dataset import TrainingData
from imgrec_lib.data.sampler import Sampler
from imgrec_lib.models.base import Recommender, look_up
from imgrec_lib.models.bprmf import BPRMF
from imgrec_lib.models.warp import WARP
from imgrec_lib.training import fit, trainer
from imgrec_lib.training.compiled import adagrad_step
from imgrec_lib.training.rows import RowAdagrad, RowAdam, rows_only

N, K, RATE = 40, 3, 0.02


@pytest.fixture(scope="module")
def data() -> TrainingData:
    return toy_data()


def train(parameters: list[nn.Parameter], optimiser: torch.optim.Optimizer, batches: list[Tensor]) -> None:
    """A look-up with gradient, one without, and one whose rows overlap the first's, in every step."""
    table, other = parameters
    for index in batches:
        optimiser.zero_grad()
        with torch.no_grad():
            weight = look_up(table, (index + 7) % N).abs().mean()
        rows, again = look_up(table, index), look_up(table, index[:2])
        loss = ((rows * other - 1) ** 2).sum() + weight * again.sum()
        loss.backward()
        optimiser.step()


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 60), st.sampled_from([1e-8, 1e-3]), st.sampled_from([(), (K,)]))
@example(19028456, 29, 1e-3, (K,))  # the furthest that is known
def test_row_adam_is_adam(seed: int, steps: int, eps: float, width: tuple[int, ...]) -> None:
    """Rows stay idle for one to sixty steps and move by up to the rate meanwhile; the larger epsilon is approximate."""
    torch.manual_seed(seed)
    start, weight = torch.randn(N, *width), torch.randn(width)
    batches = [torch.randint(N, (4,)) for _ in range(2 * steps)]
    by_row, dense = ([nn.Parameter(start.clone()), nn.Parameter(weight.clone())] for _ in range(2))
    expected = torch.optim.Adam(dense, lr=RATE, eps=eps, foreach=False)
    train(dense, expected, batches)
    optimiser = RowAdam(by_row, by_row[:1], RATE, eps)
    for part in (batches[:steps], batches[steps:]):
        with rows_only(by_row[:1], optimiser.look_up):
            train(by_row, optimiser, part)
        optimiser.catch_up()
    for ours, theirs in zip(by_row, dense, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=RATE * (1e-3 if eps < 1e-6 else 0.06))
        for moment in ("exp_avg", "exp_avg_sq"):
            torch.testing.assert_close(
                optimiser.state[ours][moment], expected.state[theirs][moment], rtol=2e-3, atol=2e-3
            )
        assert optimiser.state[ours]["step"] == 2 * steps


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 60), st.sampled_from([1e-8, 1e-2]), st.sampled_from([(), (K,)]))
def test_row_adagrad_is_adagrad(seed: int, steps: int, eps: float, width: tuple[int, ...]) -> None:
    torch.manual_seed(seed)
    start, weight = torch.randn(N, *width), torch.randn(width)
    batches = [torch.randint(N, (4,)) for _ in range(steps)]
    by_row, dense = ([nn.Parameter(start.clone()), nn.Parameter(weight.clone())] for _ in range(2))
    expected = torch.optim.Adagrad(dense, lr=RATE, eps=eps)
    train(dense, expected, batches)
    optimiser = RowAdagrad(by_row, by_row[:1], RATE, eps)
    with rows_only(by_row[:1], lambda table, index: None):
        train(by_row, optimiser, batches)
    for ours, theirs in zip(by_row, dense, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(optimiser.state[ours]["sum"], expected.state[theirs]["sum"], rtol=1e-4, atol=1e-5)
        assert optimiser.state[ours]["step"] == expected.state[theirs]["step"] == steps


def test_a_long_idle_row_has_made_all_its_steps() -> None:
    """One gradient, then hundreds of steps elsewhere: the sum over idle steps, by hand in float64."""
    table = nn.Parameter(torch.zeros(2, 1))
    optimiser = RowAdam([table], [table], lr=0.1, eps=1e-8)
    steps = 700
    with rows_only([table], optimiser.look_up):
        for step in range(steps):
            optimiser.zero_grad()
            look_up(table, torch.tensor([min(step, 1)])).sum().backward()
            optimiser.step()
    assert table[0].item() == pytest.approx(-0.1, rel=1e-5)  # untouched since its gradient: one step of lr
    optimiser.catch_up()
    mean, square, position = 0.1, 0.001, -0.1
    for step in range(2, steps + 1):
        mean, square = mean * 0.9, square * 0.999
        position -= 0.1 * (mean / (1 - 0.9**step)) / ((square / (1 - 0.999**step)) ** 0.5 + 1e-8)
    assert table[0].item() == pytest.approx(position, rel=1e-5)


def test_kernels_work_where_nothing_can_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """In an installation that is read-only, for a user without a home, Numba refuses to cache."""

    def refuse(*arguments: object) -> None:
        raise RuntimeError("cannot cache function")

    monkeypatch.setattr(numba.core.caching.CacheImpl, "__init__", refuse)
    assert compiled(lambda x: x + 1)(1) == 2


def test_gradients_of_the_same_row_add_up() -> None:
    """Adagrad's first step is the sign of the sum: row 2's three gradients by hand, row 0 untouched."""
    values, squares = np.zeros((3, 2), np.float32), np.zeros((3, 2), np.float32)
    gradient = np.array([[1, 4], [3, 0], [2, -5], [-9, 2]], np.float32)
    adagrad_step(np.array([2, 1, 2, 2]), gradient, values, squares, 0.5, 0.0)
    assert squares.tolist() == [[0, 0], [9, 0], [36, 1]]
    assert values[2].tolist() == [0.5, -0.5] and values[0].tolist() == [0, 0]


@pytest.mark.parametrize("row", [-1, N])
def test_a_row_that_is_not_there_is_refused(row: int) -> None:
    """A compiled loop would read or write what lies beside the table."""
    table = nn.Parameter(torch.zeros(N, K))
    optimiser = RowAdam([table], [table], RATE, 1e-8)
    with rows_only([table], optimiser.look_up):
        look_up(table, torch.tensor([0])).sum().backward()
        optimiser.step()
        with pytest.raises(IndexError, match="a row that its table does not have"):
            look_up(table, torch.tensor([1, row]))


def fitted(name: str, data: TrainingData, optimiser: str) -> Recommender:
    model = small(name, data)
    model.phases = tuple(
        replace(phase, optimiser=optimiser, learning_rate=0.01, batch_size=8, epochs=2, patience=0, negatives=2,
                gradient_clip=0.0, choose_by="auc")
        for phase in model.phases
    )  # fmt: skip
    fit(model, data, lambda model: 0.5, progress=False)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("optimiser", ["adam", "adagrad", "sgd"])
@pytest.mark.parametrize("name", [n for n in TRAINED if "images" not in CARDS[n].needs])
def test_every_model_trains_by_row_as_it_does_by_table(
    name: str, optimiser: str, data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table that its model reads in another way than by `look_up` would be left behind."""
    monkeypatch.setattr(trainer, "ROWS_PER_LOOK_UP", float("inf"))
    expected = fitted(name, data, optimiser)
    monkeypatch.setattr(trainer, "ROWS_PER_LOOK_UP", 0)
    found = fitted(name, data, optimiser).state_dict()
    assert found.keys() == expected.state_dict().keys()
    for key, theirs in expected.state_dict().items():
        difference = (found[key] - theirs).abs().max().item()
        assert difference <= 2e-4, key


def test_warp_announces_what_its_search_reads(data: TrainingData) -> None:
    model = built(WARP, "warp", data)
    told: list[tuple[int, Tensor]] = []
    batch = model.sample(Sampler(data, 0), model.phases[0])
    with rows_only([model.users, model.items, model.item_bias], lambda table, index: told.append((id(table), index))):
        model.first_violators(batch)
    read = {name: torch.cat([index.flatten() for table, index in told if table == id(getattr(model, name))]).unique()
            for name in ("users", "items", "item_bias")}  # fmt: skip
    candidates = torch.cat([batch.positives, batch.negatives.flatten()]).unique()
    assert read["users"].equal(batch.users.unique())
    assert read["items"].equal(candidates) and read["item_bias"].equal(candidates)


def test_small_tables_are_trained_whole(data: TrainingData) -> None:
    model = built(BPRMF, "bpr-mf", data, factors=8)
    phase, cpu = model.phases[0], torch.device("cpu")
    parameters = list(model.start_phase(0))
    assert trainer._row_tables(model, parameters, replace(phase, batch_size=1000), cpu) == []
    few = replace(phase, batch_size=1, negatives=1)
    assert len(model.users) >= 16 and 16 <= len(model.items) < 8 * 16, "a row of one number counts as an eighth"
    assert [id(t) for t in trainer._row_tables(model, parameters, few, cpu)] == [id(model.users), id(model.items)]
    assert trainer._row_tables(model, parameters, replace(few, gradient_clip=1.0), cpu) == []
    assert [id(t) for t in trainer._row_tables(model, [model.items], few, cpu)] == [id(model.items)]


def test_look_ups_are_as_before_when_training_ends(data: TrainingData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "ROWS_PER_LOOK_UP", 0)
    users = fitted("bpr-mf", data, "adam").get_parameter("users")
    look_up(users, torch.tensor([0])).sum().backward()
    assert not not_none(users.grad).is_sparse


def test_training_by_row_resumes_to_the_same_weights(
    data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "ROWS_PER_LOOK_UP", 0)

    def run(epochs_before_the_stop: int | None) -> Recommender:
        model, left = small("bpr-mf", data), epochs_before_the_stop
        model.phases = tuple(replace(p, batch_size=8, epochs=4, patience=0, negatives=1) for p in model.phases)

        def validate(model: Recommender) -> float:
            nonlocal left
            if left is not None:
                left -= 1
                if left < 0:
                    raise KeyboardInterrupt
            return 0.5

        fit(model, data, validate, progress=False, checkpoint=tmp_path / "checkpoint", save_every=0)
        return model

    with pytest.raises(KeyboardInterrupt):
        run(3)
    assert (tmp_path / "checkpoint").exists()
    resumed = run(None)
    for ours, theirs in zip(resumed.parameters(), run(None).parameters(), strict=True):
        assert torch.equal(ours, theirs)
