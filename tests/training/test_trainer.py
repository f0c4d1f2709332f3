"""The trainer: what it minimises, when it stops, what it restores, and that it resumes to the same result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from narrow import not_none
from toy import toy_data

from imgrec_lib.data.dataset import Interactions, TrainingData
from imgrec_lib.data.sampler import Batch, Sampler
from imgrec_lib.errors import InputError
from imgrec_lib.models import build_model, imgrec_dir, imgrec_ft, list_models
from imgrec_lib.models.base import ParameterGroup, Recommender, TrainSettings
from imgrec_lib.models.parts import visual
from imgrec_lib.training import fit, read_checkpoint, write_checkpoint


@pytest.fixture
def data() -> TrainingData:
    rng = np.random.default_rng(5)
    users, items = np.nonzero(rng.random((40, 30)) < 0.2)
    features = rng.random((30, 8), dtype=np.float32)
    return TrainingData(Interactions.from_pairs(users, items, 40, 30), features=features)


class Scripted:
    """A validation function that returns the given values one after the other, and keeps what it was asked."""

    def __init__(self, values: Sequence[float] | Sequence[dict[str, float]]) -> None:
        self.values = values
        self.calls: list[dict[str, torch.Tensor]] = []

    def __call__(self, model: Recommender) -> float | dict[str, float]:
        self.calls.append({name: value.clone() for name, value in model.state_dict().items()})
        return self.values[min(len(self.calls), len(self.values)) - 1]


def test_one_epoch_equals_a_loop_written_by_hand(data: TrainingData) -> None:
    settings = TrainSettings(batch_size=16, epochs=1, learning_rate=0.01)
    model, reference = (build_model("bpr-mf", data, seed=1) for _ in range(2))
    model.phases = (settings,)
    fit(model, data, Scripted([0.1, 0.2]), seed=7, progress=False)
    optimiser = torch.optim.Adam(reference.parameters(), lr=0.01, eps=1e-8)
    sampler = Sampler(data, 7)
    for _ in range(len(data.interactions) // 16):
        batch = sampler.triples(16, 1, "user")
        optimiser.zero_grad()
        reference.loss(batch).backward()
        optimiser.step()
    for name, value in reference.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=1e-5, atol=1e-6)


def test_patience_counts_validations_and_the_best_weights_return(data: TrainingData) -> None:
    model = build_model("bpr-mf", data, patience=2, epochs=50, batch_size=32)
    validate = Scripted([0.5, 0.6, 0.8, 0.7, 0.75, 0.9])
    result = fit(model, data, validate, progress=False)
    assert list(result.curve["validation_auc"]) == [0.5, 0.6, 0.8, 0.7, 0.75]
    assert (result.best_auc, result.best_phase, result.best_epoch) == (0.8, 1, 2)
    for name, value in validate.calls[2].items():
        assert torch.equal(model.state_dict()[name], value)
    assert not model.training


def test_weights_are_chosen_by_the_metric_that_is_asked_for(data: TrainingData) -> None:
    """AUC falls while NDCG rises; the metrics that come with the best NDCG are kept, the curve has both."""
    values = [{"auc": 0.9 - e / 100, "ndcg@10": n, "hr@7": e / 10} for e, n in enumerate([0.1, 0.3, 0.2, 0.25, 0.9])]
    model = build_model("bpr-mf", data, patience=2, epochs=50, batch_size=32, choose_by="ndcg@10")
    seen: list[dict[str, Any]] = []
    validate = Scripted(values)
    result = fit(model, data, validate, progress=False, observe=seen.append)
    assert list(result.curve.columns) == ["phase", "epoch", "loss", "validation_auc", "validation_ndcg@10", "seconds"]
    assert list(result.curve["validation_ndcg@10"]) == [0.1, 0.3, 0.2, 0.25]
    assert list(result.curve["validation_auc"]) == [0.9, 0.89, 0.88, 0.87]
    assert (result.choose_by, result.best_epoch, result.best_auc) == ("ndcg@10", 1, 0.89)
    assert result.validation == values[1]
    assert [(row["choose_by"], row["best"]) for row in seen] == [("ndcg@10", 0.3)] * 3
    for name, value in validate.calls[1].items():
        assert torch.equal(model.state_dict()[name], value)


def test_what_is_chosen_by_must_be_measured_and_the_same_in_all_phases(data: TrainingData) -> None:
    with pytest.raises(InputError, match=r"validation does not measure 'ndcg@10'.*ValidationMetrics"):
        fit(build_model("bpr-mf", data, choose_by="ndcg@10"), data, Scripted([0.5]), progress=False)
    with pytest.raises(InputError, match="validation does not measure 'auc'"):
        fit(build_model("bpr-mf", data), data, Scripted([{"hr@10": 0.5}]), progress=False)
    model = build_model("bpr-mf", data)
    model.phases = (model.phases[0], replace(model.phases[0], validation_users=5))
    with pytest.raises(InputError, match="all phases are validated on the same users: give each the same validation_"):
        fit(model, data, Scripted([0.5]), progress=False)
    model.phases = (model.phases[0], replace(model.phases[0], choose_by="hr@10"))
    with pytest.raises(InputError, match="all phases choose by the same metric, not by 'auc' and 'hr@10'"):
        fit(model, data, Scripted([0.5]), progress=False)


def test_without_validation_all_epochs_run_and_the_last_weights_stay(data: TrainingData) -> None:
    model, reference = (build_model("bpr-mf", data, patience=1, epochs=3, batch_size=32) for _ in range(2))
    seen: list[dict[str, object]] = []
    result = fit(model, data, None, progress=False, observe=seen.append)
    reference.phases = (replace(reference.phases[0], patience=0, restore="last"),)
    fit(reference, data, Scripted([0.5, 0.4]), progress=False)
    for name, value in reference.state_dict().items():
        assert torch.equal(model.state_dict()[name], value)
    assert list(result.curve["epoch"]) == [0, 1, 2, 3] and result.curve["validation_auc"].isna().all()
    assert (result.best_auc, result.validation, result.best_epoch) == (None, {}, 3)
    assert [row["best"] for row in seen] == [None] * 3
    assert fit(build_model("poprank", data), data, None, progress=False).best_auc is None


def test_the_last_weights_stay_where_they_are_asked_for(data: TrainingData) -> None:
    model = build_model("bpr-mf", data, patience=0, epochs=4, evaluate_every=3, batch_size=32, restore="last")
    validate = Scripted([0.5, 0.9, 0.2])
    result = fit(model, data, validate, progress=False)
    assert list(result.curve["validation_auc"].dropna()) == [0.5, 0.9, 0.2]
    assert (result.best_auc, result.best_phase, result.best_epoch) == (0.2, 1, 4)
    assert not torch.equal(validate.calls[2]["users"], validate.calls[1]["users"])
    for name, value in validate.calls[2].items():
        assert torch.equal(model.state_dict()[name], value)


def test_a_second_phase_starts_from_the_last_weights_of_a_first_that_keeps_them(data: TrainingData) -> None:
    model = build_model("bpr-mf", data, epochs=2, patience=0, batch_size=32)
    model.phases = (replace(model.phases[0], restore="last"), replace(model.phases[0], learning_rate=1e-4))
    validate = Scripted([0.1, 0.9, 0.2, 0.2, 0.15, 0.1])
    result = fit(model, data, validate, progress=False)
    for name, value in validate.calls[2].items():
        assert torch.equal(validate.calls[3][name], value) and torch.equal(model.state_dict()[name], value)
    assert (result.best_auc, result.best_phase, result.best_epoch) == (0.2, 1, 2)  # of phase 2 none was better


def test_the_last_weights_and_patience_do_not_go_together(data: TrainingData) -> None:
    model = build_model("bpr-mf", data, patience=2, restore="last")
    with pytest.raises(InputError, match="restore 'last' keeps the last of all epochs: set patience to 0"):
        fit(model, data, Scripted([0.5]), progress=False)


def test_without_patience_all_epochs_run(data: TrainingData) -> None:
    model = build_model("bpr-mf", data, patience=0, epochs=6, evaluate_every=4)
    result = fit(model, data, Scripted([0.9, 0.1]), progress=False)
    assert list(result.curve["epoch"]) == list(range(7))
    assert list(result.curve["validation_auc"].notna()) == [True, False, False, False, True, False, True]
    assert result.best_epoch == 0


def test_a_second_phase_starts_from_the_best_weights_of_the_first(data: TrainingData) -> None:
    model = build_model("bpr-mf", data, epochs=3, patience=0, batch_size=32)
    model.phases = (model.phases[0], replace(model.phases[0], learning_rate=1e-4, epochs=2))
    validate = Scripted([0.1, 0.9, 0.2, 0.3, 0.9, 0.95, 0.5])
    result = fit(model, data, validate, progress=False)
    assert list(result.curve["phase"]) == [1, 1, 1, 1, 2, 2, 2]
    for name, value in validate.calls[1].items():
        assert torch.equal(validate.calls[4][name], value)
    assert (result.best_phase, result.best_epoch) == (2, 1)


class Interrupted(Exception):
    pass


@pytest.mark.slow
@pytest.mark.parametrize("stop_after", [1, 3, 5])
@pytest.mark.parametrize(
    "optimiser, schedule, accumulate", [("adam", "constant", 1), ("adagrad", "constant", 3), ("sgd", "linear", 1)]
)
def test_a_stopped_training_resumes_to_the_same_result(
    data: TrainingData, tmp_path: Path, stop_after: int, optimiser: str, schedule: str, accumulate: int
) -> None:
    values = [0.3, 0.4, 0.5, 0.45, 0.6, 0.55, 0.5]

    def build() -> Recommender:
        model = build_model("imgrec-ft", data, factors=4, units=5, epochs=4, patience=3, batch_size=16)
        first = replace(model.phases[0], optimiser=optimiser, schedule=schedule, accumulate=accumulate)
        model.phases = (first, replace(first, epochs=2))
        return model

    undisturbed = build()
    expected = fit(undisturbed, data, Scripted(values), seed=3, progress=False)

    checkpoint, calls = tmp_path / "training.safetensors", 0

    def validate(model: Recommender) -> float:
        nonlocal calls
        calls += 1
        if calls == stop_after + 2 and not resumed:
            calls -= 1
            raise Interrupted
        return values[min(calls, len(values)) - 1]

    resumed = False
    options: dict[str, Any] = {
        "seed": 3,
        "checkpoint": checkpoint,
        "identity": "x",
        "save_every": 0.0,
        "progress": False,
    }
    with pytest.raises(Interrupted):
        fit(build(), data, validate, **options)
    assert checkpoint.exists()
    # The validations that came after the last save happen again.
    calls = len(read_checkpoint(checkpoint).progress["curve"])
    resumed = True
    model = build()
    result = fit(model, data, validate, **options)
    for name, value in undisturbed.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    columns = ["phase", "epoch", "loss", "validation_auc"]
    pd.testing.assert_frame_equal(result.curve[columns], expected.curve[columns])
    assert not checkpoint.exists()


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(data: TrainingData) -> None:
    def weights(seed: int) -> torch.Tensor:
        model = build_model("imgrec-ft", data, epochs=2, patience=0, batch_size=16)
        fit(model, data, Scripted([0.1, 0.2, 0.3]), seed=seed, progress=False)
        return model.get_parameter("item_table").detach()

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_the_users_random_stream_and_settings_are_left_alone(data: TrainingData) -> None:
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    fit(build_model("bpr-mf", data, epochs=1), data, Scripted([0.5]), progress=False)
    assert torch.equal(torch.rand(3), expected)
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_loss_that_is_not_finite_names_batch_and_parameter(data: TrainingData) -> None:
    model = build_model("bpr-mf", data, epochs=3, batch_size=16)
    with torch.no_grad():
        model.get_parameter("item_bias").fill_(float("nan"))
    with pytest.raises(InputError, match=r"epoch 1, step 1 .*'(users|items|item_bias)'.*learning rate"):
        fit(model, data, Scripted([0.5]), progress=False)


def test_a_gradient_is_clipped_to_its_global_norm(data: TrainingData) -> None:
    model = build_model("bpr-mf", data, epochs=1, patience=0, initial_scale=5.0)
    model.phases = (TrainSettings(optimiser="sgd", learning_rate=1.0, epochs=1, batch_size=10_000, gradient_clip=1e-3),)
    before = torch.cat([p.detach().clone().flatten() for p in model.parameters()])
    fit(model, data, Scripted([0.1, 0.2]), progress=False)
    after = torch.cat([p.detach().flatten() for p in model.parameters()])
    assert (after - before).norm().item() == pytest.approx(1e-3, rel=1e-2)


@pytest.mark.parametrize("gradient_clip", [0.0, 1e-3])
def test_accumulated_batches_train_as_one_large_batch_does(
    data: TrainingData, gradient_clip: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler = Sampler(data, 0)
    large = [sampler.triples(32, 2) for _ in range(30)]
    small = [
        Batch(*parts) for batch in large for parts in zip(*(t.split(8) for t in batch[:3]), [None] * 4, strict=True)
    ]

    def trained(batches: list[Batch], accumulate: int) -> tuple[Recommender, pd.DataFrame]:
        drawn = iter(batches)
        model = build_model("imgrec-ft", data, factors=4, units=5, l2=1e-3, epochs=3, patience=0)
        phase = replace(
            model.phases[0], batch_size=32 // accumulate, accumulate=accumulate, gradient_clip=gradient_clip
        )
        model.phases = (phase,)
        monkeypatch.setattr(model, "sample", lambda sampler, settings: next(drawn))
        curve = fit(model, data, Scripted([0.1, 0.2, 0.3, 0.4]), progress=False).curve
        assert len(batches) - len(list(drawn)) == 3 * (len(data.interactions) // 32) * accumulate
        return model, curve

    (one, curve_of_one), (four, curve_of_four) = trained(large, 1), trained(small, 4)
    for name, value in one.state_dict().items():
        torch.testing.assert_close(four.state_dict()[name], value, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(curve_of_four["loss"], curve_of_one["loss"], rtol=1e-6)


TRAINED = [name for name, card in list_models().items() if card.profiles["default"].phases]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in TRAINED if not name.endswith("-ete")])  # they look at pictures: slow
def test_the_loss_is_in_bfloat16_when_asked_for_and_for_models_that_allow_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = toy_data()

    def losses(precision: str) -> tuple[list[float], set[bool]]:
        seen: set[bool] = set()
        model = build_model(name, data, epochs=2, patience=0, batch_size=64, precision=precision)
        computed = model.loss

        def loss(batch: Batch) -> torch.Tensor:
            seen.add(torch.is_autocast_enabled("cpu"))
            assert torch.get_autocast_dtype("cpu") == torch.bfloat16
            return computed(batch)

        monkeypatch.setattr(model, "loss", loss)
        return list(
            fit(model, data, Scripted([{"auc": 0.1, "ndcg@10": 0.1}]), progress=False).curve["loss"].dropna()
        ), seen

    full, seen = losses("float32")
    assert seen == {False} and losses("auto") == (full, {False}), "unless asked for more, a CPU computes in float32"
    if build_model(name, data).mixed_precision:
        mixed, seen = losses("bfloat16")
        assert seen == {True} and mixed == pytest.approx(full, rel=0.02) and mixed != full
    else:
        with pytest.raises(InputError, match="is not trained in bfloat16: leave precision at 'auto' or 'float32'"):
            losses("bfloat16")


@pytest.mark.parametrize("name", ["imgrec-dir", "imgrec-ft", "vbpr"])
def test_features_rounded_beforehand_train_as_features_rounded_in_the_batch(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mixed precision multiplies rounded features; who rounds them makes no difference.

    VBPR's batch has more different items than pairs: it rounds both features of a pair instead of their difference.
    """
    data = toy_data()
    batch = Sampler(data, 0).triples(12, 1)

    def gradients(autocast: bool = True) -> list[torch.Tensor]:
        model = build_model(name, data, seed=0)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            model.loss(batch).backward()
        return [not_none(parameter.grad) for parameter in model.parameters()]

    before = gradients()
    for module in (visual, imgrec_dir, imgrec_ft):
        monkeypatch.setattr(module, "as_multiplied", lambda features: features)
    within, full = gradients(), gradients(autocast=False)
    exact = name != "vbpr"
    for one, two in zip(before, within, strict=True):
        atol = 0.01 * two.abs().max().item()
        torch.testing.assert_close(one, two, rtol=0 if exact else 0.02, atol=0 if exact else atol)
    assert any(not torch.equal(one, two) for one, two in zip(before, full, strict=True)), "was not in bfloat16"


def test_linear_decay_is_by_step(data: TrainingData, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_model("bpr-mf", data, epochs=1)
    settings = TrainSettings(optimiser="sgd", learning_rate=0.5, epochs=4, patience=0, schedule="linear")
    model.phases = (replace(settings, batch_size=len(data.interactions) // 2),)
    rates: list[float] = []
    step = torch.optim.SGD.step

    def recorded(self: torch.optim.SGD) -> None:
        rates.append(self.param_groups[0]["lr"])
        step(self)

    monkeypatch.setattr(torch.optim.SGD, "step", recorded)
    fit(model, data, Scripted([0.1]), progress=False)
    assert rates == pytest.approx([0.5, 0.4375, 0.375, 0.3125, 0.25, 0.1875, 0.125, 0.0625])


def test_groups_decay_and_warm_up_are_those_of_a_loop_by_hand(data: TrainingData) -> None:
    """AdamW from its formulas: the items learn at a rate of their own, and all rates grow in the first five steps."""
    model, reference = (build_model("bpr-mf", data, seed=1) for _ in range(2))
    size, rates = len(data.interactions) // 3, {"users": (0.01, 0.2), "items": (0.004, 0.5), "item_bias": (0.01, 0.2)}
    settings = TrainSettings(batch_size=size, epochs=3, patience=0, learning_rate=0.01, weight_decay=0.2, warm_up=5)
    model.phases = (settings,)
    own = ParameterGroup([model.get_parameter("items")], *rates["items"])
    model.parameter_groups = lambda: [own]  # type: ignore[method-assign]
    fit(model, data, None, seed=7, progress=False)
    sampler, weights = Sampler(data, 7), dict(reference.named_parameters())
    moments = {name: [torch.zeros_like(each), torch.zeros_like(each)] for name, each in weights.items()}
    assert set(weights) == set(rates)
    for step in range(1, 10):
        reference.zero_grad()
        reference.loss(sampler.triples(size)).backward()
        for name, weight in weights.items():
            rate, decay = rates[name][0] * min(1, step / 5), rates[name][1]
            gradient, (mean, square) = not_none(weight.grad), moments[name]
            mean.mul_(0.9).add_(0.1 * gradient)
            square.mul_(0.999).add_(0.001 * gradient**2)
            move = mean / (1 - 0.9**step) / ((square / (1 - 0.999**step)).sqrt() + 1e-8)
            weight.data = weight.data - rate * decay * weight.data - rate * move
    for name, value in weights.items():
        torch.testing.assert_close(model.state_dict()[name], value.detach(), rtol=1e-4, atol=1e-6)
    model.phases = (replace(settings, optimiser="sgd"),)
    with pytest.raises(InputError, match=r"rates of their own.*not of 'sgd'"):
        fit(model, data, None, progress=False)


def test_a_checkpoint_of_another_run_or_a_damaged_one_is_refused(data: TrainingData, tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    write_checkpoint(path, {"model": {"w": torch.ones(2)}}, {"epoch": 3}, "bpr-mf on a")
    assert read_checkpoint(path, "bpr-mf on a").progress == {"epoch": 3}
    with pytest.raises(InputError, match="is of 'bpr-mf on a', not of 'bpr-mf on b'"):
        read_checkpoint(path, "bpr-mf on b")
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(InputError, match="no readable checkpoint"):
        read_checkpoint(path)
    with pytest.raises(InputError, match="there is no checkpoint"):
        read_checkpoint(tmp_path / "none")


@pytest.mark.parametrize(
    "field, value",
    [
        ("optimiser", "adamw"),
        ("schedule", "cosine"),
        ("positives_by", "item"),
        ("accumulate", 0),
        ("precision", "half"),
        ("restore", "first"),
    ],
)
def test_unknown_settings_get_a_sentence(data: TrainingData, field: str, value: str | int) -> None:
    model = build_model("bpr-mf", data, epochs=1)
    wrong: dict[str, Any] = {field: value}
    model.phases = (replace(model.phases[0], **wrong),)
    with pytest.raises(InputError, match=str(value)):
        fit(model, data, Scripted([0.5]), progress=False)
