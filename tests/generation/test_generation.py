"""The conditional GAN, its quality measures, and preference maximisation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from narrow import built, not_none, number_in
from PIL import Image
from torch import Tensor, nn

from imgrec_lib.data.dataset import Dataset
from imgrec_lib.errors import InputError
from imgrec_lib.features import build_backbone
from imgrec_lib.generation import (
    GAN,
    Design,
    GANSettings,
    Pictures,
    PreferenceSettings,
    class_pictures,
    design,
    frechet_distance,
    generation_quality,
    load_gan,
    picture_features,
    train_gan,
    users_of_class,
    with_options,
)
from imgrec_lib.generation import gan as gan_module
from imgrec_lib.generation.gan import as_pixels, discriminator_loss, generator_loss
from imgrec_lib.generation.networks import Discriminator, Generator, SameConvTranspose2d
from imgrec_lib.models.dvbpr import DVBPR
from imgrec_lib.models.parts.cnn_f import SameConv2d

SMALL = GANSettings(latent=7, channels=2, epochs=3, batch_size=8, learning_rate=1e-3)


def toy_pictures(n: int = 24, size: int = 16, seed: int = 0) -> Pictures:
    """Class 0 is red and class 1 blue, each with a darker square somewhere."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    pixels = np.full((n, size, size, 3), 40, dtype=np.uint8)
    pixels[labels == 0, ..., 0] = 220
    pixels[labels == 1, ..., 2] = 220
    for picture in pixels:
        row, column = rng.integers(0, size // 2, 2)
        picture[row : row + 4, column : column + 4] //= 2
    return Pictures(pixels, labels, ("red", "blue"), np.arange(n))


def toy_gan(seed: int = 0) -> GAN:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return GAN(16, ("red", "blue"), SMALL).eval()


# --- the networks


def output_shapes(network: nn.Module, *inputs: Tensor) -> list[tuple[int, ...]]:
    """Shapes of what each weighted layer gives, in the order of the calls."""
    shapes: list[tuple[int, ...]] = []
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            layer.register_forward_hook(lambda _, __, output: shapes.append(tuple(output.shape[1:])))
    with torch.no_grad():
        network(*inputs)
    return shapes


def test_generator_shapes_at_64_pixels() -> None:
    generator = Generator(64, 6)
    assert generator.first.in_features == 256 + 6
    shapes = output_shapes(generator, torch.zeros(2, 256), torch.tensor([0, 5]))
    assert shapes == [
        (4 * 4 * 256,),
        (256, 8, 8),
        (256, 8, 8),
        (256, 16, 16),
        (256, 16, 16),
        (128, 32, 32),
        (64, 64, 64),
        (3, 64, 64),
    ]
    layers = [layer for layer in generator.layers if isinstance(layer, nn.ConvTranspose2d)]
    assert [layer.stride[0] for layer in layers] == [2, 1, 2, 1, 2, 2] and generator.last.stride[0] == 1
    assert all(layer.kernel_size == (3, 3) for layer in [*layers, generator.last])
    assert len(generator.norms) == 6
    assert generator.first_norm.eps == 1e-5 and generator.first_norm.momentum == pytest.approx(0.19)


def test_discriminator_shapes_at_64_pixels() -> None:
    network = Discriminator(64, 6)
    shapes = output_shapes(network, torch.zeros(2, 3, 64, 64), torch.tensor([0, 5]))
    assert shapes == [(64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4), (1,)]
    # The class lies beside the picture and the first three outputs, not beside the fourth.
    assert [layer.in_channels for layer in network.layers] == [3 + 6, 64 + 6, 128 + 6, 256 + 6]
    assert network.last.in_features == 4 * 4 * 512
    assert all((layer.kernel_size, layer.stride) == ((5, 5), (2, 2)) for layer in network.layers)
    assert [isinstance(norm, nn.BatchNorm2d) for norm in network.norms] == [False, True, True, True]


@pytest.mark.parametrize("size", [16, 32, 128])
def test_other_sizes(size: int) -> None:
    pictures = Generator(size, 3, latent=5, channels=2)(torch.zeros(2, 5), torch.tensor([0, 2]))
    assert pictures.shape == (2, 3, size, size)
    assert Discriminator(size, 3, channels=2)(pictures, torch.tensor([0, 2])).shape == (2,)


@pytest.mark.parametrize("size", [8, 48, 0])
def test_a_size_that_cannot_be(size: int) -> None:
    with pytest.raises(InputError, match="a power of two from 16 pixels on"):
        Generator(size, 3)


@pytest.mark.parametrize(("kernel", "stride", "size"), [(3, 2, 8), (3, 1, 6), (5, 2, 8), (4, 3, 9)])
def test_transposed_convolution_is_the_transpose(kernel: int, stride: int, size: int) -> None:
    """<conv(x), y> = <x, transpose(y)>, as TensorFlow defines its transposed convolution."""
    generator = torch.Generator().manual_seed(0)
    down, up = SameConv2d(3, 2, kernel, stride).double(), SameConvTranspose2d(2, 3, kernel, stride).double()
    with torch.no_grad():
        up.weight.copy_(down.weight)
        not_none(down.bias).zero_()
        not_none(up.bias).zero_()
    x = torch.randn(2, 3, size, size, generator=generator, dtype=torch.float64)
    y = torch.randn(2, 2, size // stride, size // stride, generator=generator, dtype=torch.float64)
    torch.testing.assert_close((down(x) * y).sum(), (x * up(y)).sum())


def test_stride_two_cuts_the_last_row_and_column() -> None:
    layer = SameConvTranspose2d(1, 1, 3, 2)
    x = torch.randn(1, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    full = nn.functional.conv_transpose2d(x, layer.weight, layer.bias, 2)
    assert full.shape[-1] == 9
    torch.testing.assert_close(layer(x), full[..., :-1, :-1])


def test_initial_weights() -> None:
    gan = GAN(64, ("a", "b"), GANSettings(channels=8))
    for layer in gan.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            assert not not_none(layer.bias).any()
            cut = isinstance(layer, nn.Conv2d)
            assert (layer.weight.abs().max() <= 0.04) == cut
            assert layer.weight.std().item() == pytest.approx(0.0176 if cut else 0.02, rel=0.15)


def test_the_class_changes_picture_and_judgement() -> None:
    gan = toy_gan()
    for parameter in gan.parameters():
        nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(1))
    codes = torch.randn(1, 7, generator=torch.Generator().manual_seed(0)).repeat(2, 1)
    labels = torch.tensor([0, 1])
    pictures = gan.generator(codes, labels)
    assert not torch.allclose(pictures[0], pictures[1])
    judged = gan.discriminator(pictures[:1].repeat(2, 1, 1, 1), labels)
    assert not torch.allclose(judged[0], judged[1])


def test_losses_by_hand() -> None:
    real, generated = torch.tensor([1.0, 0.5]), torch.tensor([0.0, 0.2])
    assert discriminator_loss(real, generated).item() == pytest.approx(0.5 * (0.25 / 2 + 0.04 / 2))
    assert generator_loss(generated).item() == pytest.approx((1 + 0.64) / 2)


def test_codes_follow_their_law() -> None:
    random = torch.Generator().manual_seed(0)
    normal = toy_gan().draw(5000, random)
    assert normal.shape == (5000, 7)
    assert normal.std().item() == pytest.approx(1, abs=0.02) and normal.abs().max() > 3
    uniform = GAN(16, ("a",), replace(SMALL, codes="uniform")).draw(5000, random)
    assert uniform.min() >= -1 and uniform.max() <= 1
    assert uniform.std().item() == pytest.approx(3**-0.5, abs=0.02)
    with pytest.raises(InputError, match="unknown codes 'normall': did you mean 'normal'"):
        with_options(SMALL, {"codes": "normall"})


def test_pixels_of_a_picture() -> None:
    picture = torch.tensor([-1.0, 0.0, 1.0]).view(1, 3, 1, 1)
    assert as_pixels(picture).tolist() == [[[[0, 128, 255]]]]


# --- training


def test_a_step_by_hand() -> None:
    """One step against plain SGD-like bookkeeping: D moves by L_D alone, then G by L_G of the moved D.

    By hand G makes the pictures twice, as the authors' code does, and its moving averages keep 0.9 at each pass.
    """
    pictures = toy_pictures()
    real, labels = gan_module.scaled(torch.from_numpy(pictures.pixels[:4])), torch.from_numpy(pictures.labels[:4])
    codes = torch.randn(4, 7, generator=torch.Generator().manual_seed(3))
    gan, other = toy_gan().train(), toy_gan().train()
    optimisers = [torch.optim.SGD(network.parameters(), lr=0.1) for network in (gan.generator, gan.discriminator)]
    gan_module._step(gan, optimisers, real, labels, codes)  # type: ignore[arg-type]

    for norm in (other.generator.first_norm, *other.generator.norms):
        norm.momentum = 0.1
    fake = other.generator(codes, labels).detach()
    d_loss = 0.5 * (
        (other.discriminator(real, labels) - 1).pow(2).mean() + other.discriminator(fake, labels).pow(2).mean()
    )
    gradients = torch.autograd.grad(d_loss, list(other.discriminator.parameters()))
    with torch.no_grad():
        for parameter, gradient in zip(other.discriminator.parameters(), gradients, strict=True):
            parameter.sub_(0.1 * gradient)
    g_loss = (other.discriminator(other.generator(codes, labels), labels) - 1).pow(2).mean()
    gradients = torch.autograd.grad(g_loss, list(other.generator.parameters()))
    with torch.no_grad():
        for parameter, gradient in zip(other.generator.parameters(), gradients, strict=True):
            parameter.sub_(0.1 * gradient)
    for name, value in gan.state_dict().items():
        if name.startswith("generator") and name.endswith("num_batches_tracked"):
            continue  # which nothing reads
        torch.testing.assert_close(other.state_dict()[name], value, rtol=1e-4, atol=1e-6, msg=name)
    assert all(parameter.requires_grad for parameter in gan.parameters())


def test_the_discriminator_s_learning_rate_is_a_multiple(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []

    def watched(gan: GAN, average: Generator, optimisers: list[torch.optim.Adam], *_: object) -> list[float]:
        rates.extend(optimiser.defaults["lr"] for optimiser in optimisers)
        return [0.0] * 4

    monkeypatch.setattr(gan_module, "_epoch", watched)
    train_gan(toy_pictures(), tmp_path, replace(SMALL, epochs=1, learning_rate_ratio=3.0), progress=False)
    assert rates == pytest.approx([1e-3, 3e-3])


def test_a_killed_training_ends_as_if_it_had_never_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures, settings = toy_pictures(), replace(SMALL, averaging=0.9)
    whole = train_gan(pictures, tmp_path / "whole", settings, seed=4, progress=False)
    calls: list[int] = []
    original = gan_module._epoch

    def killed(*args: Any) -> list[float]:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*args)

    with monkeypatch.context() as patch:
        patch.setattr(gan_module, "_epoch", killed)
        with pytest.raises(KeyboardInterrupt):
            train_gan(pictures, tmp_path / "killed", settings, seed=4, progress=False)
    assert (tmp_path / "killed" / "training.safetensors").exists()
    again = train_gan(pictures, tmp_path / "killed", settings, seed=4, progress=False)
    columns = [name for name in whole.curve if name != "seconds"]
    assert whole.curve[columns].equals(again.curve[columns])
    for name, value in whole.gan.state_dict().items():
        assert torch.equal(value, again.gan.state_dict()[name])
    assert np.array_equal(whole.progress(), again.progress())
    names = {str(path.relative_to(tmp_path / "killed")) for path in (tmp_path / "killed").rglob("*") if path.is_file()}
    assert names == {"curve.csv", "gan.safetensors", *(f"samples/epoch-{e:04d}.png" for e in range(4))}


@pytest.mark.parametrize("decay", [0.0, 0.8])
def test_what_is_kept_is_the_average_of_the_generators(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decay: float
) -> None:
    states: list[dict[str, Tensor]] = []
    original = gan_module._step

    def watched(gan: GAN, *args: Any) -> list[Tensor]:
        if not states:
            states.append({name: value.clone() for name, value in gan.generator.state_dict().items()})
        result = original(gan, *args)
        states.append({name: value.clone() for name, value in gan.generator.state_dict().items()})
        return result

    monkeypatch.setattr(gan_module, "_step", watched)
    settings = replace(SMALL, averaging=decay)
    trained = train_gan(toy_pictures(), tmp_path, settings, seed=4, progress=False)
    assert len(states) == 1 + 3 * 3
    shares = [decay**9] + [(1 - decay) * decay ** (9 - step) for step in range(1, 10)]
    for name, value in trained.gan.generator.state_dict().items():
        if name.endswith("num_batches_tracked"):
            assert value == 9
        else:
            mean = sum(share * state[name] for share, state in zip(shares, states, strict=True))
            torch.testing.assert_close(value, mean, rtol=1e-5, atol=1e-6)
    with pytest.raises(InputError, match="'averaging' of GANSettings must be float, at least 0 and below 1, not 1"):
        train_gan(toy_pictures(), tmp_path / "other", replace(SMALL, averaging=1.0), progress=False)


def test_what_is_trained_is_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = toy_pictures()
    first = train_gan(pictures, tmp_path, replace(SMALL, epochs=1), progress=False)
    monkeypatch.setattr(gan_module, "_epoch", lambda *_: pytest.fail("trained again"))
    second = train_gan(pictures, tmp_path, replace(SMALL, epochs=1), progress=False)
    codes, labels = first.gan.draw(4, torch.Generator().manual_seed(0)), torch.tensor([0, 1, 0, 1])
    assert np.array_equal(first.gan.sample(codes, labels), load_gan(tmp_path).gan.sample(codes, labels))
    assert second.curve.equals(first.curve) and not second.gan.training
    with pytest.raises(InputError, match="choose another folder"):
        train_gan(pictures, tmp_path, replace(SMALL, epochs=2), progress=False)
    with pytest.raises(InputError, match="choose another folder"):
        train_gan(toy_pictures(seed=1), tmp_path, replace(SMALL, epochs=1), progress=False)
    with pytest.raises(InputError, match="there is no checkpoint"):
        load_gan(tmp_path / "nothing")
    with pytest.raises(InputError, match="a batch of 25 pictures cannot be drawn from 24"):
        train_gan(pictures, tmp_path / "other", replace(SMALL, batch_size=25), progress=False)


def test_sample_sheets_show_the_same_codes_every_epoch(tmp_path: Path) -> None:
    trained = train_gan(toy_pictures(), tmp_path, SMALL, seed=2, progress=False)
    progress = trained.progress()
    assert progress.shape == (4, 2, 8, 16, 16, 3) and progress.dtype == np.uint8
    assert trained.curve["epoch"].tolist() == [1, 2, 3]
    codes = trained.gan.draw(16, torch.Generator().manual_seed(2 + 1))
    last = trained.gan.sample(codes, torch.arange(2).repeat_interleave(8))
    assert np.array_equal(progress[-1].reshape(16, 16, 16, 3), last)
    sheet = Image.open(trained.sheets[-1])
    assert sheet.size == (8 * 16, 2 * 16)
    assert np.array_equal(np.asarray(sheet)[16:32, 32:48], last[8 + 2])


@pytest.mark.slow
def test_it_learns_the_colour_of_a_class(tmp_path: Path) -> None:
    settings = replace(SMALL, channels=8, epochs=40, learning_rate=2e-3)
    trained = train_gan(toy_pictures(48), tmp_path, settings, progress=False)
    gan = trained.gan
    pictures = gan.sample(gan.draw(40, torch.Generator().manual_seed(9)), torch.arange(40) % 2)
    means = pictures.mean(axis=(1, 2))
    assert (means[0::2, 0] > means[0::2, 2] + 60).all()
    assert (means[1::2, 2] > means[1::2, 0] + 60).all()
    real = toy_pictures(16, seed=1).pixels.reshape(16, -1).astype(float)
    before, after = (frechet_distance(trained.progress()[at].reshape(16, -1).astype(float), real) for at in (0, -1))
    assert after < before / 2


def test_class_pictures_of_a_dataset(small_wardrobe: Dataset) -> None:
    train, held_out = class_pictures(small_wardrobe, 16, classes=3, held_out=0.25, seed=1)
    codes, names = not_none(small_wardrobe.categories)
    largest = [names[c] for c in np.argsort(-np.bincount(codes), kind="stable")[:3]]
    assert sorted(train.names) == sorted(largest) and train.names == held_out.names
    assert not set(train.items) & set(held_out.items)
    for part in (train, held_out):
        assert part.pixels.shape == (len(part), 16, 16, 3) and part.size == 16
        assert [names[codes[item]] for item in part.items] == [part.names[label] for label in part.labels]
    for label, name in enumerate(train.names):
        size = (codes == names.index(name)).sum()
        assert (held_out.labels == label).sum() == round(0.25 * size)
        assert (train.labels == label).sum() == size - round(0.25 * size)
    with pytest.raises(InputError, match="has no images"):
        class_pictures(replace(small_wardrobe, images=None))
    with pytest.raises(InputError, match="'held_out' of class_pictures must be float, above 0 and below 1, not 1"):
        class_pictures(small_wardrobe, held_out=1)


# --- quality


def test_frechet_distance_by_hand() -> None:
    # One dimension: (m - n)^2 + (s - t)^2, here means 1 and 5, deviations sqrt(2) and sqrt(8).
    first, second = np.array([[0.0], [2.0]]), np.array([[3.0], [7.0]])
    assert frechet_distance(first, second) == pytest.approx(16 + (8**0.5 - 2**0.5) ** 2)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("n", "m", "d"), [(40, 50, 3), (6, 9, 4), (5, 30, 8), (4, 5, 12)])
def test_frechet_distance_against_a_matrix_root(n: int, m: int, d: int) -> None:
    rng = np.random.default_rng(n)
    first, second = rng.normal(size=(n, d)), rng.normal(1, 2, (m, d)) @ rng.normal(size=(d, d))
    a, b = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    if n > d:  # scipy's root of a singular product is of little worth; eigenvalues serve for both
        cross = np.trace(np.real(scipy.linalg.sqrtm(a @ b)))
    else:
        cross = np.sqrt(np.clip(np.linalg.eigvals(a @ b).real, 0, None)).sum()
    expected = ((first.mean(0) - second.mean(0)) ** 2).sum() + np.trace(a) + np.trace(b) - 2 * cross
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-5)
    assert frechet_distance(second, first) == pytest.approx(expected, rel=1e-5)


def test_frechet_distance_refuses_too_few() -> None:
    with pytest.raises(InputError, match="at least two vectors of one length"):
        frechet_distance(np.zeros((1, 3)), np.zeros((4, 3)))
    with pytest.raises(InputError, match="at least two vectors of one length"):
        frechet_distance(np.zeros((4, 2)), np.zeros((4, 3)))


def test_quality_of_perfect_and_of_swapped_pictures(small_wardrobe: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    train, held_out = class_pictures(small_wardrobe, 32, classes=3, held_out=0.3)
    backbone = build_backbone(size=96)
    gan = GAN(32, train.names, SMALL).eval()
    monkeypatch.setattr(gan, "sample", lambda codes, labels: held_out.pixels)
    table = generation_quality(gan, train, held_out, backbone).astype(float)
    assert table.index.tolist() == ["generated", "training pictures", "held-out pictures", "noise"]
    assert number_in(table, "generated", "distance") == pytest.approx(0, abs=1e-6)
    agreement = table["class agreement"]
    assert agreement["generated"] == agreement["held-out pictures"] > 0.7
    assert number_in(table, "noise", "distance") > number_in(table, "training pictures", "distance") > 0
    assert agreement["noise"] < 0.7
    # Pictures of other classes than asked for: what the classifier says of them is right and does not agree.
    others = replace(held_out, pixels=np.roll(held_out.pixels[np.argsort(held_out.labels)], len(held_out) // 3, axis=0))
    monkeypatch.setattr(gan, "sample", lambda codes, labels: others.pixels[np.argsort(np.argsort(held_out.labels))])
    assert number_in(generation_quality(gan, train, held_out, backbone), "generated", "class agreement") < 0.4


def test_features_do_not_depend_on_the_parts(small_wardrobe: Dataset) -> None:
    assert small_wardrobe.images is not None
    backbone, pixels = build_backbone(size=32), small_wardrobe.images.pixels[:20]
    together = picture_features(pixels, backbone)
    assert together.shape == (20, 1280) and together.dtype == np.float64
    np.testing.assert_allclose(picture_features(pixels[17:], backbone), together[17:], rtol=1e-4, atol=1e-5)


# --- preference maximisation


class Redness(nn.Module):
    """User u likes red as much as its number says; a weight to be left alone, and a dropout to be silenced."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0))
        self.dropout = nn.Dropout(0.5)

    def score_pictures(self, users: Tensor, pictures: Tensor) -> Tensor:
        return self.weight * users * self.dropout(pictures[:, 0].mean((1, 2)) - pictures[:, 2].mean((1, 2)))


def wild_gan() -> GAN:
    """Random weights large enough that codes matter."""
    gan = toy_gan()
    generator = torch.Generator().manual_seed(1)
    for parameter in gan.parameters():
        nn.init.normal_(parameter, std=0.2, generator=generator)
    return gan


def test_only_the_code_moves_and_the_objective_rises() -> None:
    gan, scorer = wild_gan().train(), Redness().train()
    before = {name: value.clone() for name, value in [*gan.state_dict().items(), *scorer.state_dict().items()]}
    found = design(gan, scorer, 3, 1, PreferenceSettings(starts=5, selection="all"))
    assert isinstance(found, Design)
    for name, value in [*gan.state_dict().items(), *scorer.state_dict().items()]:
        assert torch.equal(value, before[name]), name
    assert gan.training and scorer.training
    assert all(p.requires_grad and p.grad is None for p in [*gan.parameters(), *scorer.parameters()])
    assert found.pictures.shape == (11, 5, 16, 16, 3) and found.codes.shape == (11, 5, 7)
    assert found.preference.shape == found.realism_penalty.shape == found.objective.shape == (11, 5)
    assert (found.objective[-1] > found.objective[0]).all()
    assert (np.diff(found.codes, axis=0) != 0).all()


def test_what_is_logged_belongs_to_the_picture_beside_it() -> None:
    gan, scorer = wild_gan(), Redness().eval()
    settings = PreferenceSettings(starts=3, steps=4, eta=0.7, selection="all", bound="tanh")
    found = design(gan, scorer, 2, 0, settings)
    labels, users = torch.zeros(3, dtype=torch.int64), torch.full((3,), 2)
    for step in range(5):
        with torch.no_grad():
            pictures = gan.generator(torch.from_numpy(found.codes[step]), labels)
            preference = scorer.score_pictures(users, pictures)
            penalty = (gan.discriminator(pictures, labels) - 1) ** 2
        assert np.array_equal(as_pixels(pictures), found.pictures[step])
        np.testing.assert_allclose(found.preference[step], preference, rtol=1e-5)
        np.testing.assert_allclose(found.realism_penalty[step], penalty, rtol=1e-4)
        np.testing.assert_allclose(found.objective[step], preference - 0.7 * penalty, rtol=1e-4, atol=1e-6)


def test_the_steps_are_adam_s() -> None:
    gan, scorer = wild_gan(), Redness().eval()
    found = design(gan, scorer, 1, 1, PreferenceSettings(starts=2, steps=3, selection="all"), seed=5)
    random = torch.Generator().manual_seed(5)
    start = 0.5 * torch.stack([torch.randn(7, generator=random), torch.randn(7, generator=random)])
    np.testing.assert_allclose(found.codes[0], start)
    z = start.clone().double().numpy()
    m, v = np.zeros_like(z), np.zeros_like(z)
    labels, users = torch.ones(2, dtype=torch.int64), torch.ones(2, dtype=torch.int64)
    for t in range(1, 4):
        code = torch.tensor(z, dtype=torch.float32, requires_grad=True)
        pictures = gan.generator(code, labels)
        objective = scorer.score_pictures(users, pictures) - (gan.discriminator(pictures, labels) - 1) ** 2
        gradient = -torch.autograd.grad(objective.sum(), code)[0].double().numpy()
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        z = z - 0.05 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        np.testing.assert_allclose(found.codes[t], z, rtol=1e-3, atol=1e-4)


def test_starts_and_calls_do_not_touch_each_other() -> None:
    gan, scorer = wild_gan(), Redness().eval()
    every = PreferenceSettings(starts=4, selection="all")
    first = design(gan, scorer, 1, 0, every)
    design(gan, scorer, 2, 1, every)  # an optimiser that went on from here would step otherwise
    again = design(gan, scorer, 1, 0, every)
    assert np.array_equal(first.codes, again.codes)
    fewer = design(gan, scorer, 1, 0, replace(every, starts=2))
    np.testing.assert_allclose(fewer.codes, first.codes[:, :2], rtol=1e-3, atol=1e-4)
    assert not np.allclose(design(gan, scorer, 1, 0, every, seed=1).codes[0], first.codes[0])


def test_options_of_the_optimisation() -> None:
    gan, scorer = wild_gan(), Redness().eval()
    every = design(gan, scorer, 1, 0, PreferenceSettings(selection="all"))
    best = design(gan, scorer, 1, 0, PreferenceSettings())
    assert best.pictures.shape[:2] == (11, 1)
    assert best.objective[-1, 0] == every.objective[-1].max()
    assert np.array_equal(best.codes[:, 0], every.codes[:, every.objective[-1].argmax()])
    bounded = design(gan, scorer, 1, 0, PreferenceSettings(bound="tanh", learning_rate=3.0))
    assert (
        np.abs(bounded.codes).max() <= 1 < np.abs(design(gan, scorer, 1, 0, PreferenceSettings(steps=30)).codes).max()
    )
    assert design(gan, scorer, 1, 0, PreferenceSettings(steps=0)).pictures.shape[0] == 1
    real = design(gan, scorer, 1, 0, PreferenceSettings(eta=50.0, selection="all", steps=30))
    free = design(gan, scorer, 1, 0, PreferenceSettings(eta=0.0, selection="all", steps=30))
    assert real.realism_penalty[-1].mean() < free.realism_penalty[-1].mean()
    assert free.preference[-1].mean() > real.preference[-1].mean()
    wrong: dict[str, tuple[Any, str]] = {
        "bound": ("tan", "unknown bound 'tan': did you mean 'tanh'"),
        "selection": ("bst", "unknown selection 'bst': did you mean 'best'"),
        "starts": (0, "'starts' of PreferenceSettings must be int, at least 1, not 0"),
    }
    for name, (value, sentence) in wrong.items():
        with pytest.raises(InputError, match=sentence):
            PreferenceSettings(**{name: value})
    with pytest.raises(InputError, match="the GAN has classes 0 to 1, not 2"):
        design(gan, scorer, 1, 2)


def test_dvbpr_designs(small_wardrobe: Dataset) -> None:
    train, _ = class_pictures(small_wardrobe, 16, classes=2)
    data = small_wardrobe.training_data()
    model = built(DVBPR, "dvbpr", data, size=32, factors=4, channels=2, units=6, batches="items").eval()
    with torch.no_grad():
        model.users.normal_(generator=torch.Generator().manual_seed(0))
    found = design(wild_gan(), model, 5, 1, PreferenceSettings(starts=3, eta=0.0, selection="all"))
    assert (found.preference[-1] > found.preference[0]).all()
    users = users_of_class(small_wardrobe, train, 1, 4)
    codes, names = not_none(small_wardrobe.categories)
    counts = [
        sum(names[codes[item]] == train.names[1] for item in small_wardrobe.train.of(user))
        for user in range(small_wardrobe.n_users)
    ]
    assert users == sorted(range(small_wardrobe.n_users), key=lambda user: (-counts[user], user))[: len(users)]
    assert all(counts[user] >= 3 for user in users)
    with pytest.raises(InputError, match="no user has 1000000 training items of the class"):
        users_of_class(small_wardrobe, train, 1, 4, at_least=10**6)
    assert train.label(train.names[1]) == 1
    with pytest.raises(InputError, match="unknown class of the GAN 'nothing'"):
        train.label("nothing")


def test_options_from_a_dictionary() -> None:
    settings = with_options(GANSettings(), {"epochs": 3, "learning_rate": 1, "betas": [0.1, 0.9]})
    assert settings == GANSettings(epochs=3, learning_rate=1.0, betas=(0.1, 0.9))
    with pytest.raises(InputError, match="unknown option of PreferenceSettings 'step': did you mean 'steps'"):
        with_options(PreferenceSettings(), {"step": 3})
    with pytest.raises(InputError, match="option 'epochs' of GANSettings must be int, at least 0, not '3'"):
        with_options(GANSettings(), {"epochs": "3"})
