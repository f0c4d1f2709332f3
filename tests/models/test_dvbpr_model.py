"""DVBPR: TensorFlow's padding, the network's shapes, and the loss against loops written from the paper."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from narrow import metric_value, not_none
from toy import N_ITEMS, N_USERS, planted_dataset, toy_data

from imgrec_lib import ValidationAUC, evaluate, fit
from imgrec_lib.data.dataset import Dataset, Interactions
from imgrec_lib.data.decoding import decode
from imgrec_lib.data.images import ImageStore
from imgrec_lib.data.sampler import Batch, ItemBatch, Sampler
from imgrec_lib.data.storing import resized
from imgrec_lib.errors import InputError
from imgrec_lib.models import build_model, model_card, resolve_profile
from imgrec_lib.models.base import Recommender, TrainSettings
from imgrec_lib.models.dvbpr import DVBPR
from imgrec_lib.models.parts.cnn_f import CNNF, SameConv2d, same_padding, scaled

SMALL: dict[str, Any] = {"factors": 3, "size": 32, "channels": 2, "units": 6, "l2_network": 0.0, "l2_users": 0.0}


def small(seed: int = 0, **parameters: Any) -> DVBPR:
    model = build_model(
        "dvbpr", toy_data(), seed=seed, **(SMALL | {"batches": "interactions", "cold_negatives": True} | parameters)
    )
    assert isinstance(model, DVBPR)
    return model.eval()


# --- SAME padding


def slow_same(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, stride: int) -> np.ndarray:
    """TensorFlow's SAME convolution of one picture by its definition: output (i, j) is the sum over the kernel at
    rows i * stride - before + a, outside counting 0, where `before` is half of what is lacking, rounded down."""
    _, height, width = x.shape
    n_out, _, kernel, _ = weight.shape
    rows, columns = int(np.ceil(height / stride)), int(np.ceil(width / stride))
    above = max((rows - 1) * stride + kernel - height, 0) // 2
    left = max((columns - 1) * stride + kernel - width, 0) // 2
    out = np.zeros((n_out, rows, columns))
    for o in range(n_out):
        for i in range(rows):
            for j in range(columns):
                total = bias[o]
                for a in range(kernel):
                    for b in range(kernel):
                        r, c = i * stride - above + a, j * stride - left + b
                        if 0 <= r < height and 0 <= c < width:
                            total += (x[:, r, c] * weight[o, :, a, b]).sum()
                out[o, i, j] = total
    return out


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 13), st.integers(1, 13), st.integers(1, 5), st.integers(1, 4))
def test_same_convolution_is_tensorflow_s(height: int, width: int, kernel: int, stride: int) -> None:
    generator = torch.Generator().manual_seed(height * 1000 + width * 100 + kernel * 10 + stride)
    layer = SameConv2d(2, 3, kernel, stride).double()
    x = torch.randn(1, 2, height, width, generator=generator, dtype=torch.float64)
    expected = slow_same(x[0].numpy(), layer.weight.detach().numpy(), not_none(layer.bias).detach().numpy(), stride)
    np.testing.assert_allclose(layer(x)[0].detach().numpy(), expected, rtol=1e-9, atol=1e-9)


def test_paddings_of_the_paper_s_layers() -> None:
    # conv1 at 224 pixels is padded by 3 before and 4 after; the others alike on both sides.
    assert same_padding(224, 11, 4) == (3, 4)
    assert same_padding(28, 5, 1) == (2, 2)
    assert same_padding(14, 3, 1) == (1, 1)
    assert same_padding(64, 5, 2) == (1, 2)  # the discriminator's
    # A worked case: 1 2 3 under the kernel 1 1 with stride 2 is padded by nothing before and one zero after.
    layer = SameConv2d(1, 1, 2, 2)
    torch.nn.init.ones_(layer.weight)
    torch.nn.init.zeros_(not_none(layer.bias))
    row = torch.tensor([[[[1.0, 2.0, 3.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]]])
    assert layer(row)[0, 0].tolist() == [[3.0, 3.0], [0.0, 0.0]]


def test_pooling_of_an_odd_side_keeps_the_border() -> None:
    network = CNNF(36, 2, channels=1, units=3)  # sides 9, 5, 3, 2
    assert network.fc6.in_features == 4 * 2 * 2
    assert network(torch.zeros(1, 3, 36, 36)).shape == (1, 2)


# --- the network


def test_shapes_of_the_paper_s_network() -> None:
    network = CNNF(224, 100)
    shapes: dict[str, tuple[int, ...]] = {}
    for name, layer in network.named_children():
        layer.register_forward_hook(lambda _, inputs, output, name=name: shapes.update({name: tuple(output.shape[1:])}))
    with torch.no_grad():
        network(torch.zeros(1, 3, 224, 224))
    del shapes["dropout"]
    assert shapes == {
        "conv1": (64, 56, 56),
        "conv2": (256, 28, 28),
        "conv3": (256, 14, 14),
        "conv4": (256, 14, 14),
        "conv5": (256, 14, 14),
        "fc6": (4096,),
        "fc7": (4096,),
        "fc8": (100,),
    }
    assert network.fc6.in_features == 7 * 7 * 256 == 12544


def test_initial_weights_are_xavier_uniform_and_biases_zero() -> None:
    network = small(units=64).network
    for layer in network.layers():
        assert not not_none(layer.bias).any()
        receptive = layer.weight[0, 0].numel()
        limit = (6 / ((layer.weight.shape[0] + layer.weight.shape[1]) * receptive)) ** 0.5
        assert layer.weight.abs().max() <= limit
        assert layer.weight.abs().max() > 0.8 * limit
    users = small().users
    assert users.min() >= 0 and 0.008 < users.max() <= 0.01


def test_the_network_is_its_definition() -> None:
    """Written out once more, with explicit padding and per-layer calls, in another order of arguments."""
    model = small().double()
    n = model.network
    pixels = torch.from_numpy(np.array(model.pictures.pixels[:4]))
    x = (pixels.double() - 127.5).div(127.5).permute(0, 3, 1, 2)
    x = F.relu(F.conv2d(F.pad(x, (3, 4, 3, 4)), n.conv1.weight, n.conv1.bias, stride=4))
    x = F.max_pool2d(x, 2)
    x = F.max_pool2d(F.relu(F.conv2d(x, n.conv2.weight, n.conv2.bias, padding=2)), 2)
    for conv in (n.conv3, n.conv4, n.conv5):
        x = F.relu(F.conv2d(x, conv.weight, conv.bias, padding=1))
    x = F.max_pool2d(x, 2).reshape(4, -1)
    for layer in (n.fc6, n.fc7):
        x = F.relu(x @ layer.weight.T + layer.bias)
    expected = x @ n.fc8.weight.T + n.fc8.bias
    torch.testing.assert_close(model.embed(torch.arange(4)), expected, rtol=1e-6, atol=1e-7)


def test_dropout_acts_on_both_hidden_layers_in_training_alone() -> None:
    model = small(units=512, factors=8)
    items = torch.arange(5)
    assert torch.equal(model.embed(items), model.embed(items))
    model.train()
    with torch.random.fork_rng(devices=[]):
        assert not torch.equal(model.embed(items), model.embed(items))
    calls = []
    model.network.dropout.register_forward_hook(lambda *_: calls.append(1))
    model.embed(items)
    assert len(calls) == 2 and model.network.dropout.p == 0.5


# --- pictures


def test_pixels_are_scaled_to_one() -> None:
    pixels = torch.tensor([0, 255, 51], dtype=torch.uint8).view(1, 1, 1, 3)
    assert scaled(pixels).flatten().tolist() == pytest.approx([-1, 1, -0.6])


def test_resized_pictures_are_those_of_the_store(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (3, 20, 20, 3), dtype=np.uint8)
    pixels[1] = 255
    images = ImageStore.from_array(pixels, np.array([True, False, True]))
    assert resized(images, 20, cache=tmp_path) is images
    small_store = resized(images, 8, cache=tmp_path)
    assert small_store.pixels.shape == (3, 8, 8, 3) and small_store.present.tolist() == [True, False, True]
    assert np.array_equal(small_store.pixels[0], decode(pixels[0], 8))
    assert (small_store.pixels[1] == 255).all()
    nearest = resized(images, 8, resample="nearest", cache=tmp_path)
    assert np.array_equal(nearest.pixels[2], decode(pixels[2], 8, resample="nearest"))
    assert not np.array_equal(nearest.pixels[2], small_store.pixels[2])


def test_each_item_is_scored_by_its_picture_alone() -> None:
    data = toy_data()
    assert data.images is not None
    pixels = np.array(data.images.pixels)
    pixels[5] = pixels[9]
    twins = replace(data, images=ImageStore.from_array(pixels))
    model = build_model("dvbpr", twins, **SMALL).eval()
    scores = model.scorer().block(torch.arange(N_USERS))
    assert torch.equal(scores[:, 5], scores[:, 9])
    assert scores.std() > 0


def test_a_picture_of_an_item_scores_as_the_item() -> None:
    model = small()
    users, items = torch.tensor([3, 4, 3]), torch.tensor([1, 7, 9])
    pixels = torch.from_numpy(np.array(model.pictures.pixels[items.numpy()]))
    found = model.score_pictures(users, scaled(pixels))
    expected = model.scorer().pairs(users, items.unsqueeze(1)).squeeze(1)
    torch.testing.assert_close(found, expected)
    # A picture of half the size is enlarged by repeating its pixels.
    half = scaled(pixels)[:, :, ::2, ::2].contiguous().requires_grad_()
    scores = model.score_pictures(users, half)
    twice = half.detach().repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(scores, model.score_pictures(users, twice))
    scores.sum().backward()
    assert not_none(half.grad).any()
    assert model.score_pictures(users, torch.zeros(3, 3, 48, 48)).shape == (3,)


# --- the loss


def sum_loss(model: DVBPR, batch: Batch, lambda1: float, lambda2: float) -> float:
    """The paper's objective, triple by triple."""
    phi = model.embed(torch.arange(N_ITEMS)).detach().double().numpy()
    theta = model.users.detach().double().numpy()
    total = 0.0
    for u, i, js in zip(batch.users.tolist(), batch.positives.tolist(), batch.negatives.tolist(), strict=True):
        for j in js:
            total += np.log1p(np.exp(-theta[u] @ (phi[i] - phi[j])))
        total += lambda2 * 0.5 * (theta[u] ** 2).sum()
    names = [n for n, _ in model.named_parameters() if n.endswith(".weight")]
    assert len(names) == 8
    return total + lambda1 * 0.5 * sum((model.get_parameter(n).detach().double() ** 2).sum().item() for n in names)


def test_the_loss_is_the_paper_s_sum_over_the_batch_size() -> None:
    lambda1, lambda2, size = 0.7, 0.3, 16
    model = small(l2_network=lambda1 / size, l2_users=lambda2).double()
    with torch.no_grad():
        model.users.normal_(generator=torch.Generator().manual_seed(1))
    batch = Sampler(toy_data(), 0).triples(size)
    expected = sum_loss(model, batch, lambda1, lambda2)
    assert size * model.loss(batch).item() == pytest.approx(expected, rel=1e-6)
    # It is a sum: twice the same triples are twice the data's part, and the network's penalty stays what it was.
    users, positives, negatives = (torch.cat([t, t]) for t in batch[:3])
    twice = Batch(users, positives, negatives, batch.times if batch.times is None else batch.times.repeat(2))
    penalty = sum_loss(model, batch, 1, 0) - sum_loss(model, batch, 0, 0)
    assert sum_loss(model, twice, lambda1, lambda2) == pytest.approx(2 * expected - lambda1 * penalty, rel=1e-9)


def test_adam_makes_the_steps_of_the_sum() -> None:
    """Adam is blind to a factor of the loss if its epsilon bears it too."""
    size, lambda1, lambda2 = 8, 1e-2, 1.0
    results = []
    for summed in (True, False):
        model = small(l2_network=lambda1 / size, l2_users=lambda2).double()
        factor = size if summed else 1
        optimiser = torch.optim.Adam(model.parameters(), lr=1e-2, eps=1e-3 * (1 if summed else 1 / size))
        sampler = Sampler(toy_data(), 0)
        for _ in range(3):
            optimiser.zero_grad()
            (factor * model.loss(sampler.triples(size))).backward()
            optimiser.step()
        results.append(model.state_dict())
    for key, value in results[0].items():
        torch.testing.assert_close(results[1][key], value, rtol=1e-9, atol=1e-12)
    code = resolve_profile("dvbpr", "code")
    assert code.phases[0].epsilon * code.phases[0].batch_size == pytest.approx(1e-8)
    assert code.parameters["l2_network"] * code.phases[0].batch_size == pytest.approx(1e-3)


def test_each_picture_of_a_step_is_looked_at_once() -> None:
    model = small()
    seen = []
    model.network.register_forward_hook(lambda _, inputs, output: seen.append(len(inputs[0])))
    batch = Batch(torch.tensor([0, 1, 2]), torch.tensor([4, 4, 5]), torch.tensor([[6, 5], [5, 6], [4, 4]]), None)
    model.loss(batch)
    assert seen == [3]


def slow_item_loss(model: DVBPR, batch: ItemBatch, owned: list[set[int]]) -> float:
    phi = model.embed(torch.arange(N_ITEMS)).detach().double().numpy()
    theta = model.users.detach().double().numpy()
    items = batch.items.tolist()
    total = 0.0
    for u, place, weight in zip(
        batch.users.tolist(), batch.places.tolist(), batch.positive_weights.tolist(), strict=True
    ):
        i = items[place]
        terms = [np.log1p(np.exp(-theta[u] @ (phi[i] - phi[j]))) for j in items if j not in owned[u]]
        total += weight * ((np.mean(terms) if terms else 0) + model.l2_users * 0.5 * (theta[u] ** 2).sum())
    return total


def randomised(**parameters: Any) -> DVBPR:
    model = small(**parameters).double()
    with torch.no_grad():
        model.users.normal_(generator=torch.Generator().manual_seed(1))
    return model


@pytest.mark.parametrize("by", ["user", "interaction"])
def test_item_batches_against_a_loop(by: str) -> None:
    data = toy_data()
    owned = [set(data.interactions.of(u).tolist()) for u in range(N_USERS)]
    model = randomised(batches="items", l2_users=0.4)
    batch = model.sample(Sampler(data, 0), TrainSettings(batch_size=9, positives_by=by))
    assert isinstance(batch, ItemBatch) and len(batch.items) == 9
    assert model.loss(batch).item() == pytest.approx(slow_item_loss(model, batch, owned), rel=1e-6)
    # Items that nobody bought: in the paper negatives, without cold_negatives none.
    popularity = data.interactions.popularity
    cold = set(np.flatnonzero(popularity == 0).tolist())
    whole = TrainSettings(batch_size=N_ITEMS, positives_by=by)
    batch = model.sample(Sampler(data, 0), whole)
    assert isinstance(batch, ItemBatch)
    bought = randomised(batches="items", l2_users=0.4, cold_negatives=False)
    assert cold
    assert bought.loss(batch).item() == pytest.approx(
        slow_item_loss(bought, batch, [own | cold for own in owned]), rel=1e-6
    )
    assert bought.loss(batch).item() != pytest.approx(model.loss(batch).item(), rel=1e-6)


@pytest.mark.parametrize("by", ["user", "interaction"])
def test_item_batches_have_the_expectation_of_triples(by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = toy_data()
    train = data.interactions
    model = randomised(batches="items", l2_users=0.4)
    phi = model.item_embeddings().numpy()
    theta = model.users.detach().numpy()
    expected = 0.0
    for u in range(N_USERS):
        own = train.of(u)
        others = np.setdiff1d(np.arange(N_ITEMS), own)
        chance = 1 / N_USERS if by == "user" else len(own) / len(train)
        for i in own:
            pair = np.log1p(np.exp(-((phi[i] - phi[others]) @ theta[u]))).mean()
            expected += chance / len(own) * (pair + 0.4 * 0.5 * (theta[u] ** 2).sum())
    sampler = Sampler(data, 0)
    # The mean over many batches, not the network, is asked.
    monkeypatch.setattr(model, "embed", lambda items: torch.from_numpy(phi)[items])
    with torch.no_grad():
        losses = [
            model.loss(model.sample(sampler, TrainSettings(batch_size=10, positives_by=by))).item() for _ in range(1500)
        ]
    error = np.std(losses) / len(losses) ** 0.5
    assert abs(np.mean(losses) - expected) < 4 * error
    assert error < 0.03 * expected


@pytest.mark.parametrize("batches", ["items", "interactions"])
def test_shards_add_up_to_the_batch(batches: str) -> None:
    model = randomised(batches=batches, l2_users=0.2, l2_network=0.1)
    batch = model.sample(Sampler(toy_data(), 0), TrainSettings(batch_size=12))
    parts = [model.shard(batch, rank, 3) for rank in range(3)]
    total = sum(weight * model.loss(part) for part, weight in parts)
    torch.testing.assert_close(total, model.loss(batch))


def test_an_epoch_of_items_is_a_pass_over_the_catalogue() -> None:
    sampler = Sampler(toy_data(), 0)
    settings = TrainSettings(batch_size=9)
    assert small(batches="items").steps(sampler, settings) == N_ITEMS // 9
    assert small().steps(sampler, settings) == sampler.n_interactions // 9


# --- options and training


def test_options_are_checked() -> None:
    with pytest.raises(InputError, match="unknown kind of batches 'item': did you mean 'items'"):
        small(batches="item")
    with pytest.raises(InputError, match="cold_negatives=False of DVBPR needs batches='items'"):
        small(cold_negatives=False)
    with pytest.raises(InputError, match="must be int, at least 8, not 4"):
        small(size=4)
    with pytest.raises(InputError, match=r"\'dropout\' of dvbpr must be float, at least 0 and below 1, not 1\.0"):
        small(dropout=1.0)


def test_profiles_state_both_sizes() -> None:
    profiles = model_card("dvbpr").profiles
    assert profiles["paper"].parameters["factors"] == 50 and profiles["code"].parameters["factors"] == 100
    for name in ("paper", "code"):
        profile = resolve_profile("dvbpr", name)
        assert (profile.parameters["size"], profile.parameters["units"]) == (224, 4096)
        assert (profile.parameters["channels"], profile.parameters["dropout"]) == (64, 0.5)
        assert profile.parameters["batches"] == "interactions"
        assert (profile.phases[0].positives_by, profile.phases[0].epochs) == ("user", 20)
        assert (profile.phases[0].learning_rate, profile.phases[0].negatives) == (1e-4, 1)


def with_pictures(cold: int) -> Dataset:
    """The planted dataset, each item's three looks painted as its colour; nobody has bought the first `cold` items."""
    dataset, _ = planted_dataset()
    rng = np.random.default_rng(0)
    rng.normal(size=(dataset.n_users, 3))  # as the dataset draws them: tastes first, then looks
    looks = rng.normal(size=(dataset.n_items, 3))
    colours = 255 / (1 + np.exp(-1.5 * looks))[:, None, None, :] + rng.normal(
        scale=8, size=(dataset.n_items, 16, 16, 3)
    )
    train = dataset.train
    kept = train.items >= cold
    assert train.times is not None
    warm = Interactions.from_pairs(
        train.users[kept], train.items[kept], dataset.n_users, dataset.n_items, train.times[kept]
    )
    images = ImageStore.from_array(colours.clip(0, 255).astype(np.uint8))
    return replace(dataset, train=warm, images=images)


def test_it_recognises_cold_items_by_their_pictures() -> None:
    dataset = with_pictures(cold=30)
    data = dataset.training_data()
    options: dict[str, Any] = {"size": 16, "factors": 4, "channels": 8, "units": 32, "l2_network": 0.0, "l2_users": 0.2}
    training: dict[str, Any] = {"epochs": 80, "evaluate_every": 10, "learning_rate": 3e-3, "batch_size": 45}
    model = build_model("dvbpr", data, batches="items", **options, **training)
    fit(model, data, ValidationAUC(dataset), progress=False)
    metrics = evaluate(model, dataset, protocols=("exact",)).metrics
    assert metric_value(metrics, "exact", "cold_auc") > 0.65 and metric_value(metrics, "exact", "auc") > 0.7


def test_a_stopped_training_ends_as_if_it_had_never_stopped(tmp_path: Path) -> None:
    """Its weights lie channels last in memory, which a checkpoint does not keep."""
    dataset = with_pictures(cold=0)
    data = dataset.training_data()
    options = SMALL | {"batches": "items", "epochs": 4, "batch_size": 30}
    whole, stopped = (build_model("dvbpr", data, **options) for _ in range(2))
    expected = fit(whole, data, ValidationAUC(dataset), progress=False)
    calls = []

    def validate(model: Recommender) -> float:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return ValidationAUC(dataset)(model)

    with pytest.raises(KeyboardInterrupt):
        fit(stopped, data, validate, checkpoint=tmp_path / "c", save_every=0, progress=False)
    again = build_model("dvbpr", data, **options)
    found = fit(again, data, ValidationAUC(dataset), checkpoint=tmp_path / "c", progress=False)
    columns = ["epoch", "loss", "validation_auc"]
    assert found.curve[columns].equals(expected.curve[columns])
    for name, value in whole.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)
