"""ImgRec-EtE: the cut, the two phases, the kept activations, and item batches with the paper's expected loss."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from narrow import built
from torch import Tensor, nn
from toy import exact_auc, planted_dataset, toy_interactions

from imgrec_lib.data.dataset import HeldOut, Interactions, TrainingData
from imgrec_lib.data.images import ImageStore
from imgrec_lib.data.sampler import Batch, Sampler
from imgrec_lib.errors import InputError
from imgrec_lib.features import Backbone, activations, build_backbone, extract_features, trunk_activations
from imgrec_lib.models import build_model
from imgrec_lib.models.base import Recommender, TrainSettings
from imgrec_lib.models.imgrec_ete import ImgRecEtE
from imgrec_lib.training import fit, read_checkpoint

N_USERS, N_ITEMS = 13, 17


def pictures(n: int = N_ITEMS, size: int = 40, seed: int = 0) -> ImageStore:
    """Random pictures of a few coarse patches; the first item has none."""
    coarse = np.random.default_rng(seed).integers(0, 256, (n, 5, 5, 3), dtype=np.uint8)
    pixels = coarse.repeat(size // 5, 1).repeat(size // 5, 2)
    return ImageStore.from_array(pixels, np.arange(n) > 0)


def training_data() -> TrainingData:
    return TrainingData(toy_interactions(N_USERS, N_ITEMS), images=pictures())


def ete(data: TrainingData | None = None, *, seed: int = 0, **options: Any) -> ImgRecEtE:
    """A small model on small pictures."""
    weights = "random" if options.get("backbone") == "resnet50" else "default"
    small: dict[str, Any] = {"factors": 4, "units": 6, "size": 64, "weights": weights, "keep": "memory"}
    options = small | {"batch_statistics": True} | options
    return built(ImgRecEtE, "imgrec-ete", data or training_data(), seed=seed, **options)


def loss_of(model: ImgRecEtE, batch: Any) -> torch.Tensor:
    """Of a batch of either form."""
    return model.loss(batch)


def with_tables(model: ImgRecEtE, scale: float = 1.0, seed: int = 0) -> ImgRecEtE:
    """The model with tables and layer of such a size that its scores differ."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.startswith("tail."):
                parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    return model.eval()


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[int]]:
    """Pictures in each pass through trunk and tail since the test began."""
    passes: dict[str, list[int]] = {"trunk": [], "tail": []}

    def counted(name: str) -> None:
        method = getattr(Backbone, name)

        def wrapper(self: Backbone, x: Tensor) -> Tensor:
            passes[name].append(len(x))
            return method(self, x)

        monkeypatch.setattr(Backbone, name, wrapper)

    counted("trunk")
    counted("tail")
    return passes


# --- The cut


def test_resnet50_is_cut_inside_a_block() -> None:
    model = ete(backbone="resnet50")
    kinds = [type(module) for module in model.tail.modules()]
    assert kinds.count(nn.Conv2d) == 15 and kinds.count(nn.BatchNorm2d) == 15
    first = ["layer3_4_conv2", "layer3_4_bn2", "layer3_4_conv3", "layer3_4_bn3", "layer3_5_conv1"]
    assert list(model.tail)[:5] == first
    assert {name[:8] for name in list(model.tail)[4:]} == {
        "layer3_5", "layer4_0", "layer4_1", "layer4_2"
    }  # fmt: skip
    assert sum(p.numel() for p in model.tail.parameters()) == 16_936_448


@pytest.mark.slow
@pytest.mark.parametrize("batches", ["items", "interactions"])
@pytest.mark.parametrize("backbone", ["efficientnet-lite0", "resnet50"])
def test_phase_two_trains_the_tail_and_nothing_before_it(backbone: str, batches: str) -> None:
    data = training_data()
    model = with_tables(ete(data, backbone=backbone, batches=batches))
    network = model.backbone.network
    tail = {id(p) for p in model.tail.parameters()}
    sampler, settings = Sampler(data, 0), TrainSettings(batch_size=6)

    first = list(model.start_phase(0))
    assert not tail & {id(p) for p in first}
    before = {name: value.clone() for name, value in network.state_dict().items()}
    model.train()
    loss_of(model, model.sample(sampler, settings)).backward()
    assert all(p.grad is None for p in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())

    second = list(model.start_phase(1))
    assert {id(p) for p in second} == {id(p) for p in first} | tail
    model.train()
    optimiser = torch.optim.SGD(second, lr=0.01)
    loss_of(model, model.sample(sampler, settings)).backward()
    trained = set()
    for name, parameter in network.named_parameters():
        assert (parameter.grad is not None) == (id(parameter) in tail), name
        if parameter.grad is not None and parameter.grad.any():
            trained.add(name)
    assert len(trained) == len(tail)
    optimiser.step()
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    trainable = tuple(f"{name}." for name in model.backbone.cut.trainable)
    assert changed == {name for name in before if name.startswith(trainable)}
    assert {name.rsplit(".", 1)[1] for name in changed} >= {"weight", "running_mean", "running_var"}
    assert not any(p.requires_grad for p in model.start_phase(0) if id(p) in tail)


def test_a_checkpoint_holds_tables_layer_and_tail_and_loads_strictly() -> None:
    model = ete()
    expected = {"user_table", "user_bias", "item_table", "item_bias", "image_weight", "layer.weight", "layer.bias"}
    names = set(model.state_dict())
    assert {name for name in names if not name.startswith("tail.")} == expected
    assert {name for name, _ in model.named_parameters()} <= names
    kept = {f"_blocks.{i}." for i in range(12, 16)} | {"_conv_head.", "_bn1."}
    wanted = {name for name in model.backbone.network.state_dict() if name.startswith(tuple(kept))}
    assert len(names) == len(expected) + len(wanted)
    model.start_phase(1)
    with_tables(model)
    with torch.no_grad():
        for parameter in model.tail.parameters():
            parameter.mul_(1.1)
    other = ete(seed=5).eval()
    other.scorer()
    other.load_state_dict(model.state_dict())
    users = torch.arange(N_USERS)
    # Loaded into a model of the first phase, whose features were computed with another tail.
    torch.testing.assert_close(other.scorer().block(users), model.scorer().block(users))


@pytest.mark.slow
def test_converting_the_model_converts_the_trunk() -> None:
    model = ete().double()
    assert {p.dtype for p in model.backbone.parameters()} == {torch.float64}
    assert model.scorer().block(torch.arange(2)).dtype == torch.float64


# --- Phase 1 is ImgRec-FT, phase 2 starts there


@pytest.mark.slow
@pytest.mark.parametrize("pooling", ["avg", "max"])
@pytest.mark.parametrize(("keep", "tolerance"), [("recompute", 1e-5), ("memory", 2e-3), ("disk", 2e-3)])
def test_logits_are_those_of_ft_until_phase_two_trains(keep: str, tolerance: float, pooling: str) -> None:
    data = training_data()
    assert data.images is not None
    features = extract_features(data.images, size=64, pooling=pooling, progress=False)
    ft = build_model("imgrec-ft", replace(data, features=features.values), seed=3, factors=4, units=6)
    model = ete(data, seed=3, pooling=pooling, keep=keep)
    for name, value in ft.state_dict().items():
        assert torch.equal(value, model.state_dict()[name])
    with_tables(model)
    ft.load_state_dict({name: model.state_dict()[name] for name in ft.state_dict()})
    users = torch.arange(N_USERS)
    expected = ft.eval().scorer().block(users)
    for phase in (0, 1):
        model.start_phase(phase)
        scores = model.eval().scorer().block(users)
        assert (scores - expected).abs().max() < tolerance * expected.abs().max(), phase
    batch = Sampler(data, 0).triples(50)
    torch.testing.assert_close(model.loss(batch), ft.loss(batch), rtol=3 * tolerance, atol=0)


@pytest.mark.slow
def test_penalties_are_those_of_the_phase() -> None:
    data = training_data()
    batch = Sampler(data, 0).triples(20)
    model = with_tables(ete(data, l2=0.3, l2_layer=0.2, phase2_l2=0.7)).double()
    tables = sum(w.square().sum() for w in (model.user_table, model.item_table, model.image_weight))
    layer = model.layer.weight.square().sum()
    for phase, expected in (
        (0, 0.3 * tables + 0.2 * layer),
        (1, 0.7 * (tables + layer)),
        (0, 0.3 * tables + 0.2 * layer),
    ):
        model.start_phase(phase)
        torch.testing.assert_close(model.loss(batch) - model.ranking(batch), expected)


def test_contributions_sum_to_the_score_in_both_phases() -> None:
    model = with_tables(ete())
    users, items = torch.tensor([0, 4]), torch.tensor([[1, 2, 1], [0, 16, 2]])
    for phase in (0, 1):
        model.start_phase(phase)
        total = sum(model.contributions(users, items).values())
        torch.testing.assert_close(total, model.scorer().pairs(users, items), rtol=1e-4, atol=1e-4)


# --- Each picture once


def test_evaluation_embeds_each_item_once(looked_at: dict[str, list[int]]) -> None:
    model = ete().eval()
    model.scorer()
    assert sum(looked_at["trunk"]) == sum(looked_at["tail"]) == N_ITEMS
    model.scorer()
    assert sum(looked_at["tail"]) == N_ITEMS  # fixed features
    model.start_phase(1)
    model.eval().scorer()
    assert sum(looked_at["tail"]) == 2 * N_ITEMS
    assert sum(looked_at["trunk"]) == N_ITEMS


def test_a_step_looks_at_each_of_its_pictures_once(looked_at: dict[str, list[int]]) -> None:
    data = training_data()
    for batches in ("items", "interactions"):
        model = ete(data, batches=batches)
        model.start_phase(1)
        model.train()
        sampler = Sampler(data, 0)
        batch = model.sample(sampler, TrainSettings(batch_size=7, negatives=2))
        looked_at["tail"].clear()
        loss_of(model, batch)
        if isinstance(batch, Batch):
            expected = len(torch.cat([batch.positives, batch.negatives.flatten()]).unique())
            assert model.steps(sampler, TrainSettings(batch_size=7)) == sampler.n_interactions // 7
        else:
            expected = 7
            assert model.steps(sampler, TrainSettings(batch_size=7)) == N_ITEMS // 7
            assert model.steps(sampler, TrainSettings(batch_size=100)) == 1
        assert looked_at["tail"] == [expected]
    assert sum(looked_at["trunk"]) == 2 * N_ITEMS


# --- Item batches

TOY = [(0, 1), (0, 3), (0, 4), (1, 0), (2, 2), (2, 3), *((3, i) for i in range(6)), (5, 3)]


@pytest.fixture
def toy() -> TrainingData:
    """6 items and 6 users, of whom one owns everything and one nothing."""
    users, items = np.array(TOY).T
    return TrainingData(Interactions.from_pairs(users, items, 6, 6), images=pictures(6))


def expected_loss(scores: Tensor, by: str, n: int) -> Tensor:
    """The expected loss of a triple with n negatives, by the loops of the definition."""
    history = {u: {i for v, i in TOY if v == u} for u in range(6)}
    drawable = [u for u in range(6) if 0 < len(history[u]) < 6]
    events = [(u, i) for u, i in TOY if u in drawable]
    if by == "user":
        chances = {(u, i): 1 / len(drawable) / len(history[u]) for u, i in events}
    else:
        chances = dict.fromkeys(events, 1 / len(events))
    total = scores.new_zeros(())
    for (u, i), chance in chances.items():
        outside = [j for j in range(6) if j not in history[u]]
        negative = sum((F.softplus(scores[u, j]) for j in outside), scores.new_zeros(())) / len(outside)
        total = total + chance * (F.softplus(-scores[u, i]) + n * negative) / (1 + n)
    return total


@pytest.mark.slow
def test_repeated_pictures_pass_the_tail_as_often_as_in_keras(looked_at: dict[str, list[int]]) -> None:
    """By hand: each occurrence is a picture of the batch, with its statistics; in evaluation nothing differs."""
    items = torch.tensor([[1, 2, 1], [3, 1, 2]])
    found = {}
    for repeats in (False, True):
        model = with_tables(ete(repeats=repeats))
        model.start_phase(1)
        before = model.embed_items(items)
        model.train()
        looked_at["tail"].clear()
        found[repeats] = model.embed_items(items)
        assert looked_at["tail"] == [6 if repeats else 3]
        torch.testing.assert_close(found[repeats][0, 0], found[repeats][1, 1])  # the same item twice
        assert model.visual(items.flatten()).shape == (6, 6)
        model = with_tables(ete(repeats=repeats))  # moving averages as they were
        model.start_phase(1)
        torch.testing.assert_close(model.embed_items(items), before)
    model = with_tables(ete())
    model.start_phase(1)
    model.train()
    shown = items.flatten()
    pooled = model.backbone.tail(model.activations.rows(shown).float())
    z = model.item_table[shown] + torch.relu(model.layer(pooled)) @ model.image_weight + model.item_bias
    torch.testing.assert_close(found[True], z.view(2, 3, -1), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found[True], found[False], rtol=1e-2)


@pytest.mark.parametrize("by", ["user", "interaction"])
@pytest.mark.parametrize("n", [1, 3])
def test_the_definition_is_what_triples_estimate(toy: TrainingData, by: str, n: int) -> None:
    scores = torch.randn(6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    batch = Sampler(toy, 0).triples(200_000, n, by)
    rows = batch.users.unsqueeze(1)
    losses = (F.softplus(-scores[batch.users, batch.positives]) + F.softplus(scores[rows, batch.negatives]).sum(1)) / (
        1 + n
    )
    error = losses.std() / len(losses) ** 0.5
    assert (losses.mean() - expected_loss(scores, by, n)).abs() < 4 * error
    assert error < 0.01


def every_item_batch(
    sampler: Sampler, patch: pytest.MonkeyPatch, size: int, n: int, by: str, n_users: int
) -> Iterator[Any]:
    """The item batches of all sets of items (and users), each as likely as the others."""
    drawable = len(sampler._drawable)
    user_sets = combinations(range(drawable), n_users) if n_users else [()]
    for items, users in product(combinations(range(6), size), list(user_sets)):
        drawn = iter([items, users])
        patch.setattr(sampler, "_subset", lambda total, wanted, drawn=drawn: torch.tensor(next(drawn)))
        yield sampler.item_batch(size, n, by, n_users)


@pytest.mark.slow
@pytest.mark.parametrize("n_users", [0, 2])
@pytest.mark.parametrize(("size", "n", "by"), [(2, 1, "user"), (3, 3, "user"), (1, 2, "interaction"), (6, 1, "user")])
def test_item_batches_have_the_papers_expected_loss_and_gradient(
    toy: TrainingData, monkeypatch: pytest.MonkeyPatch, size: int, n: int, by: str, n_users: int
) -> None:
    model = with_tables(ete(toy, size=32), 0.5).double()
    model.start_phase(1)
    model.eval()  # with batch statistics a score depends on the other pictures of the batch
    users, items = torch.arange(6), torch.arange(6)
    parameters = list(model.parameters())
    loss = expected_loss(model.embed_users(users) @ model.embed_items(items).T, by, n)
    gradient = torch.autograd.grad(loss, parameters)
    batches = list(every_item_batch(Sampler(toy, 0), monkeypatch, size, n, by, n_users))
    if size < 6:
        # The same embeddings, computed once for all sets.
        embedded = model.embed_items(items)
        monkeypatch.setattr(model, "embed_items", lambda items: embedded[items])
    losses = [model.ranking(batch) for batch in batches]
    estimate = torch.stack(losses).mean()
    torch.testing.assert_close(estimate, loss, rtol=1e-6, atol=0)
    for found, wanted in zip(torch.autograd.grad(estimate, parameters), gradient, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6 * max(1e-3, wanted.abs().max().item()))
    if size < 6:
        assert torch.stack(losses).std() > 1e-3


def test_item_sets_are_uniform_and_repeatable(toy: TrainingData) -> None:
    sampler, again = Sampler(toy, 4), Sampler(toy, 4)
    counts = dict.fromkeys(combinations(range(6), 2), 0)
    for _ in range(3000):
        batch = sampler.item_batch(2)
        assert torch.equal(batch.items, again.item_batch(2).items)
        counts[tuple(sorted(batch.items.tolist()))] += 1
    assert max(abs(count - 200) for count in counts.values()) < 4 * (3000 / 15 * 14 / 15) ** 0.5
    assert len(Sampler(toy, 0).item_batch(100).items) == 6
    wrongs: tuple[dict[str, Any], ...] = ({"n_items": 0}, {"n_items": 2, "n_users": -1})
    for wrong in wrongs:
        with pytest.raises(InputError, match="at least one item"):
            sampler.item_batch(**wrong)
    with pytest.raises(InputError, match="'user', 'interaction' or 'user-without-replacement', not by 'item'"):
        sampler.item_batch(2, by="item")


@pytest.mark.parametrize("n_users", [0, 5])
def test_an_item_batch_lists_all_that_is_known_of_its_items(n_users: int) -> None:
    data = training_data()
    owned = set(zip(data.interactions.users.tolist(), data.interactions.items.tolist(), strict=True))
    batch = Sampler(data, 1).item_batch(6, n_users=n_users)
    positives = list(zip(batch.users.tolist(), batch.items[batch.places].tolist(), strict=True))
    wanted = {(u, i) for u, i in owned if i in batch.items.tolist()}
    assert len(positives) == len(wanted) and set(positives) == wanted
    excluded = set(zip(batch.others[batch.owned_users].tolist(), batch.items[batch.owned_places].tolist(), strict=True))
    assert excluded == {(u, i) for u, i in wanted if u in batch.others.tolist()}
    assert len(batch.others.unique()) == (n_users or N_USERS)


@pytest.mark.slow
@pytest.mark.parametrize("world_size", [2, 3])
def test_parts_of_a_batch_add_up_to_it(world_size: int) -> None:
    data = training_data()
    for batches in ("items", "interactions"):
        model = with_tables(ete(data, batches=batches, phase2_l2=0.1)).double()
        model.start_phase(1)
        model.eval()
        batch = model.sample(Sampler(data, 0), TrainSettings(batch_size=7))
        parts = [model.shard(batch, rank, world_size) for rank in range(world_size)]
        total = sum(weight * model.loss(part) for part, weight in parts)
        torch.testing.assert_close(total, loss_of(model, batch), rtol=1e-6, atol=0)


# --- Training


def scripted(values: list[float]) -> Any:
    calls = iter(values)
    return lambda model: next(calls)


def two_phases(model: ImgRecEtE, epochs: int = 2, items: int = 5) -> ImgRecEtE:
    first, second = model.phases
    model.phases = (
        replace(first, epochs=epochs, patience=0, batch_size=16),
        replace(second, epochs=epochs, patience=0, batch_size=items, learning_rate=1e-3),
    )
    return model


class Interrupted(Exception):
    pass


@pytest.mark.slow
@pytest.mark.parametrize("batches", ["items", "interactions"])
def test_stopped_in_phase_two_it_resumes_to_the_same_result(batches: str, tmp_path: Path) -> None:
    data = training_data()
    # Validations: before and after each of 2 epochs of phase 1, then the same in phase 2 with 3 epochs.
    values = [0.3, 0.4, 0.5, 0.5, 0.6, 0.55, 0.7]

    def build() -> ImgRecEtE:
        model = two_phases(ete(data, batches=batches))
        model.phases = (model.phases[0], replace(model.phases[1], epochs=3))
        return model

    undisturbed = build()
    expected = fit(undisturbed, data, scripted(values), seed=3, progress=False)
    assert list(expected.curve["phase"]) == [1, 1, 1, 2, 2, 2, 2]

    seen = iter(values[:5])

    def interrupted(model: Any) -> float:
        for value in seen:
            return value
        raise Interrupted

    options: dict[str, Any] = {
        "seed": 3,
        "checkpoint": tmp_path / "c.safetensors",
        "identity": "x",
        "save_every": 0.0,
        "progress": False,
    }
    with pytest.raises(Interrupted):
        fit(build(), data, interrupted, **options)
    done = len(read_checkpoint(tmp_path / "c.safetensors").progress["curve"])
    assert done == 5
    model = build()
    result = fit(model, data, scripted(values[done:]), **options)
    for name, value in undisturbed.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    columns = ["phase", "epoch", "loss", "validation_auc"]
    pd.testing.assert_frame_equal(result.curve[columns], expected.curve[columns])
    users = torch.arange(N_USERS)
    assert torch.equal(model.scorer().block(users), undisturbed.scorer().block(users))


@pytest.fixture(scope="module")
def pictured() -> Any:
    """The planted dataset with pictures that show the features: twelve patches of grey, each one's brightness."""
    dataset, features = planted_dataset(n_users=100, n_items=60)
    shades = (255 * features / features.max(0)).astype(np.uint8).reshape(-1, 3, 4, 1)
    pixels = np.concatenate([shades, shades[:, :1]], 1).repeat(12, 1).repeat(12, 2).repeat(3, 3)
    return dataset.with_images(ImageStore.from_array(np.ascontiguousarray(pixels)))


@pytest.mark.slow
@pytest.mark.parametrize(("batches", "batch_statistics"), [("items", False), ("interactions", False), ("items", True)])
def test_learns_planted_tastes_and_the_tail_helps(batches: str, batch_statistics: bool, pictured: Any) -> None:
    data = pictured.training_data()
    model = ete(data, factors=8, units=16, l2_users=0.0, size=48, batches=batches, batch_statistics=batch_statistics)
    size = 20 if batches == "items" else 125
    model.phases = (
        TrainSettings(epochs=15, patience=0, batch_size=256, learning_rate=0.01),
        TrainSettings(epochs=12, patience=0, batch_size=size, learning_rate=1e-4),
    )
    means: list[float] = []

    def whole_loss(model: Recommender) -> float:
        """The expected loss on the training data itself, which training has to lower."""
        assert isinstance(model, ImgRecEtE)
        batch = Sampler(data, 0).item_batch(data.n_items)
        with torch.no_grad():
            means.append(float(model.ranking(batch)))
        return 0.5 - means[-1] / 10

    curve = fit(model, data, whole_loss, progress=False).curve
    phase1, phase2 = means[:16], means[16:]
    assert min(phase1) < 0.8 * phase1[0]
    assert phase2[0] == pytest.approx(min(phase1), rel=1e-4)
    if batch_statistics:  # the moving averages lag behind what is trained
        losses = curve[curve["phase"] == 2]["loss"].to_numpy()[1:]
        assert losses[-2:].mean() < 0.95 * losses[:2].mean()
    else:
        assert min(phase2) < 0.97 * phase2[0]
    users = torch.arange(pictured.n_users)
    popularity = np.tile(pictured.train.popularity, (pictured.n_users, 1))
    baseline = exact_auc(popularity, pictured, pictured.test.items)
    assert exact_auc(model.scorer().block(users).numpy(), pictured, pictured.test.items) > baseline + 0.1


def test_statistics_may_stay_fixed() -> None:
    data = training_data()
    model = with_tables(ete(data, batch_statistics=False))
    optimiser = torch.optim.SGD(list(model.start_phase(1)), lr=0.01)
    before = {name: value.clone() for name, value in model.tail.named_buffers()}
    batch = Sampler(data, 0).triples(20)
    expected = model.eval().loss(batch)
    loss = model.train().loss(batch)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    optimiser.step()
    assert all(torch.equal(value, before[name]) for name, value in model.tail.named_buffers())
    assert all(p.grad is not None for p in model.tail.parameters())


@pytest.mark.slow
def test_held_out_items_cannot_reach_the_weights(pictured: Any) -> None:
    other = replace(
        pictured,
        validation=HeldOut(pictured.test.items, pictured.test.times),
        test=HeldOut((pictured.validation.items + 7) % pictured.n_items, pictured.validation.times),
    )
    trained = []
    for dataset in (pictured, other):
        data = dataset.training_data()
        model = two_phases(ete(data, size=32), epochs=1, items=20)
        fit(model, data, scripted([0.1, 0.2, 0.3, 0.4]), progress=False)
        trained.append(model.state_dict())
    for name, value in trained[0].items():
        assert torch.equal(value, trained[1][name]), name


@pytest.mark.slow
def test_the_same_seed_gives_the_same_model_and_another_seed_another() -> None:
    data = training_data()

    def scores(seed: int) -> Tensor:
        model = two_phases(ete(data, size=32, seed=seed), epochs=1)
        fit(model, data, scripted([0.1, 0.2, 0.3, 0.4]), seed=seed, progress=False)
        return model.scorer().block(torch.arange(N_USERS))

    assert torch.equal(scores(1), scores(1))
    assert not torch.equal(scores(1), scores(2))


@pytest.mark.parametrize(
    ("option", "value", "hint"),
    [("keep", "disc", "'disk'"), ("batches", "item", "'items'"), ("pooling", "maxi", "'max'")],
)
def test_a_misspelt_option_gets_a_suggestion(option: str, value: str, hint: str) -> None:
    options: dict[str, Any] = {option: value}
    with pytest.raises(InputError, match=f"did you mean {hint}"):
        ete(**options).scorer()


# --- The activations


@pytest.fixture(scope="module")
def network() -> Backbone:
    return build_backbone(size=64)


@pytest.mark.parametrize(
    ("keep", "dtype"), [("disk", torch.float16), ("memory", torch.float16), ("recompute", torch.float32)]
)
def test_rows_are_the_trunks_activations(keep: str, dtype: torch.dtype, network: Backbone, tmp_path: Path) -> None:
    images = pictures(9)
    kept = trunk_activations(images, network, keep=keep, cache=tmp_path, progress=False, batch_size=4)
    items = torch.tensor([8, 0, 3, 8, 8])
    white = np.where(images.present[:, None, None, None], images.pixels, 255).astype(np.uint8)
    expected = network.trunk(torch.from_numpy(white[items.numpy()]))
    rows = kept.rows(items)
    assert rows.shape == (5, *network.activation_shape) and rows.dtype == dtype
    assert rows.is_contiguous(memory_format=torch.channels_last)
    tolerance = 1e-3 if dtype == torch.float16 else 1e-5
    torch.testing.assert_close(rows.float(), expected, rtol=tolerance, atol=tolerance * float(expected.abs().max()))
    torch.testing.assert_close(kept.rows(torch.arange(9))[items], rows, rtol=1e-4, atol=1e-5)
    n_bytes = 0 if keep == "recompute" else 2 * 9 * int(np.prod(network.activation_shape))
    assert kept.n_bytes == n_bytes
    written = list(tmp_path.glob("activations/*.npy"))
    assert len(written) == (keep == "disk")
    if written:
        stored = np.load(written[0], allow_pickle=False)
        assert stored.nbytes == n_bytes and stored.dtype == np.float16


def test_repeated_items_are_looked_at_once(network: Backbone, looked_at: dict[str, list[int]]) -> None:
    kept = trunk_activations(pictures(9), network, keep="recompute")
    assert looked_at["trunk"] == []
    kept.rows(torch.tensor([4, 4, 2, 4, 2]))
    assert looked_at["trunk"] == [2]


@pytest.mark.slow
def test_the_trunk_runs_once_for_equal_pictures_and_weights(
    tmp_path: Path, looked_at: dict[str, list[int]], network: Backbone
) -> None:
    images = pictures(5)

    def runs(images: ImageStore, network: Backbone) -> bool:
        looked_at["trunk"].clear()
        trunk_activations(images, network, cache=tmp_path, progress=False)
        return bool(looked_at["trunk"])

    assert runs(images, network)
    assert not runs(images, network)
    assert not runs(images, build_backbone(size=64, pooling="max"))
    assert runs(pictures(5, seed=1), network)
    assert runs(images, build_backbone(size=96))
    assert runs(images, build_backbone(size=64, preprocessing="torchvision"))
    resnets = [build_backbone("resnet50", weights="random", size=32, seed=seed) for seed in (0, 1)]
    assert [runs(images, resnet) for resnet in (*resnets, resnets[0])] == [True, True, False]


def test_training_the_tail_changes_no_activation(network: Backbone) -> None:
    images, model = pictures(), ete(keep="recompute")
    before = model.activations.rows(torch.arange(N_ITEMS))
    model.start_phase(1)
    model.train()
    model.loss(Sampler(training_data(), 0).triples(20)).backward()
    with torch.no_grad():
        for parameter in model.tail.parameters():
            parameter.add_(0.1)
    assert torch.equal(model.activations.rows(torch.arange(N_ITEMS)), before)
    assert torch.equal(trunk_activations(images, model.backbone, keep="recompute").rows(torch.arange(N_ITEMS)), before)


def test_a_disk_too_small_is_refused_before_anything_is_written(
    network: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, looked_at: dict[str, list[int]]
) -> None:
    images = pictures(9)
    needed = 2 * 9 * int(np.prod(network.activation_shape))
    usage = type(shutil.disk_usage(tmp_path))
    monkeypatch.setattr(activations.shutil, "disk_usage", lambda path: usage(10**9, 10**9, needed - 1))
    with pytest.raises(InputError, match=r"take 0\.0 MB and .* has 0\.0 MB free.*keep='recompute'"):
        trunk_activations(images, network, cache=tmp_path, progress=False)
    assert looked_at["trunk"] == [] and not list(tmp_path.glob("activations/*.npy"))
    monkeypatch.setattr(activations.shutil, "disk_usage", lambda path: usage(10**9, 10**9, needed))
    trunk_activations(images, network, cache=tmp_path, progress=False)


def test_bytes_are_stated_before_they_are_written(
    network: Backbone, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    n = 30
    trunk_activations(pictures(n), network, cache=tmp_path)
    size = 2 * n * int(np.prod(network.activation_shape)) / 1e6
    assert f"{size:.1f} MB:   0%" in capsys.readouterr().err.split("\r")[1]


def test_no_room_on_the_device_gets_a_sentence(network: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **options: Any) -> Tensor:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(activations.torch, "empty", full)
    with pytest.raises(InputError, match="more than cpu has free: use keep='disk'"):
        trunk_activations(pictures(3), network, keep="memory")


def test_damage_and_overflow_are_refused(network: Backbone, tmp_path: Path) -> None:
    trunk_activations(pictures(3), network, cache=tmp_path, progress=False)
    (path,) = tmp_path.glob("activations/*.npy")
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(InputError, match="are damaged: delete the file"):
        trunk_activations(pictures(3), network, cache=tmp_path, progress=False)
    for scale in (1e9, 1e-9):
        unfit = build_backbone(size=64)
        last = unfit.network.get_submodule("_blocks.11._bn2")  # the cut follows; this block has no shortcut
        with torch.no_grad():
            for parameter in last.parameters():
                parameter.mul_(scale)
        with pytest.raises(InputError, match=r"item 0 .* beyond the range of half precision: use keep='recompute'"):
            trunk_activations(pictures(3), unfit, keep="memory", progress=False)
