"""Training of the conditional GAN: least squares, class by class, resumable, with the same codes drawn every epoch."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import torch
from annotated_types import Gt, Lt
from PIL import Image
from torch import Tensor, nn

from imgrec_lib.data.dataset import Dataset
from imgrec_lib.data.storing import resized
from imgrec_lib.devices import Device
from imgrec_lib.errors import InputError, unknown_name
from imgrec_lib.files import fingerprint, replacing
from imgrec_lib.generation.networks import Discriminator, Generator
from imgrec_lib.models.parts.cnn_f import scaled
from imgrec_lib.options import Count, CountOrNone, NotNegative, Positive, ShareBelowOne
from imgrec_lib.progress import progress_bar
from imgrec_lib.training import load_optimiser, optimiser_tensors, read_checkpoint, write_checkpoint

AT_ONCE = 64
SHEET_COLUMNS = 8


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures with their classes.

    Attributes:
        pixels: (n, size, size, 3) uint8.
        labels: (n,) int64, the class of each.
        names: of the classes.
        items: (n,) int64, the item of each.
    """

    pixels: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]
    items: np.ndarray

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def size(self) -> int:
        """Height and width, in pixels."""
        return int(self.pixels.shape[1])

    def label(self, name: str) -> int:
        """The index of a class.

        Raises:
            InputError: no class has that name.
        """
        if name not in self.names:
            raise unknown_name("class of the GAN", name, self.names)
        return self.names.index(name)


def class_pictures(
    dataset: Dataset,
    size: Count = 64,
    *,
    classes: Count = 6,
    held_out: Annotated[float, Gt(0), Lt(1)] = 0.2,
    seed: CountOrNone = 0,
) -> tuple[Pictures, Pictures]:
    """The pictures of a dataset's largest categories: those to train on, and some of each class held out.

    Items of other categories and items without a picture are left out; a dataset without categories is one class.

    Args:
        dataset: with images.
        size: height and width, in pixels.
        classes: number of classes at most.
        held_out: share of each class that is held out.
        seed: seeds the choice.

    Returns:
        Training pictures and held-out pictures, each in item order.

    Raises:
        InputError: no images, fewer than two pictures of a class, or a share outside (0, 1).
    """
    if dataset.images is None:
        raise InputError(f"dataset {dataset.name!r} has no images: load it with them.")
    codes, names = dataset.categories or (np.zeros(dataset.n_items, np.int64), ["all items"])
    sizes = np.bincount(codes[dataset.images.present], minlength=len(names))
    chosen = np.sort(np.argsort(-sizes, kind="stable")[: max(1, classes)])
    if sizes[chosen].min() < 2:
        name = names[int(chosen[sizes[chosen].argmin()])]
        raise InputError(f"category {name!r} has fewer than two pictures: ask for fewer classes.")
    rng = np.random.default_rng(seed)
    is_held_out = np.zeros(dataset.n_items, dtype=bool)
    for code in chosen:
        members = np.flatnonzero((codes == code) & dataset.images.present)
        is_held_out[rng.permutation(members)[: max(1, round(held_out * len(members)))]] = True
    used = np.isin(codes, chosen) & dataset.images.present
    pixels = resized(dataset.images, size).pixels
    parts = []
    for part in (used & ~is_held_out, used & is_held_out):
        items = np.flatnonzero(part)
        labels = np.searchsorted(chosen, codes[items])
        parts.append(Pictures(np.asarray(pixels[items]), labels, tuple(names[c] for c in chosen), items))
    return parts[0], parts[1]


@dataclass(frozen=True)
class GANSettings:
    """What is built and how it is trained; the defaults are those of the authors' code.

    Attributes:
        latent: length of the code z.
        channels: width, see `Generator` and `Discriminator`.
        codes: the law of z, "normal" (the code's) or "uniform" in (-1, 1) (the paper's).
        epochs: one draws as many pictures as there are.
        batch_size: pictures a step.
        learning_rate, betas, epsilon: of both Adams; but see `learning_rate_ratio`.
        learning_rate_ratio: the discriminator's learning rate is so many times the generator's (two time scales, Heusel
            et al. 2017). 1 in the authors' code; more keeps a narrow discriminator ahead of its generator.
        weight_decay: L2 on all weights (1e-5 is reported of the paper, the code has none).
        averaging: d of the moving average of the generator, average <- d average + (1 - d) weights after every step
            (its batch norms' statistics likewise). The average draws the pictures and is what is kept; it does not
            take part in the training. Of a short training it draws smoother pictures than the last weights, which need
            not be nearer to real ones. 0 keeps the last weights, as the authors' code does.
    """

    latent: Count = 256
    channels: Count = 64
    codes: Literal["normal", "uniform"] = "normal"
    epochs: CountOrNone = 30
    batch_size: Count = 16
    learning_rate: Positive = 1e-4
    learning_rate_ratio: Positive = 1.0
    betas: tuple[ShareBelowOne, ShareBelowOne] = (0.5, 0.99)
    epsilon: Positive = 1e-8
    weight_decay: NotNegative = 0.0
    averaging: ShareBelowOne = 0.0


class GAN(nn.Module):
    """Generator and discriminator.

    Args:
        size: height and width of the pictures.
        classes: names of the classes.
        settings: sizes of the networks and law of the codes.

    Raises:
        InputError: see `doublings`.
    """

    def __init__(self, size: int, classes: tuple[str, ...], settings: GANSettings) -> None:
        super().__init__()
        self.size, self.classes, self.settings = size, classes, settings
        self.generator = Generator(size, len(classes), latent=settings.latent, channels=settings.channels)
        self.discriminator = Discriminator(size, len(classes), channels=settings.channels)

    @property
    def device(self) -> torch.device:
        return self.generator.first.weight.device

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Codes of the law: (n, latent) float32 on the random stream's device."""
        shape = (n, self.settings.latent)
        if self.settings.codes == "uniform":
            return torch.rand(shape, generator=generator, device=generator.device) * 2 - 1
        return torch.randn(shape, generator=generator, device=generator.device)

    @torch.no_grad()
    def sample(self, codes: Tensor, labels: Tensor) -> np.ndarray:
        """Pictures in inference mode, whatever mode the networks are in: (n, size, size, 3) uint8.

        Args:
            codes: (n, latent) float.
            labels: (n,) int64.
        """
        mode = self.training
        self.eval()
        parts = zip(codes.to(self.device).split(AT_ONCE), labels.to(self.device).split(AT_ONCE), strict=True)
        pictures = [as_pixels(self.generator(z, y)) for z, y in parts]
        self.train(mode)
        return np.concatenate(pictures)


def as_pixels(pictures: Tensor) -> np.ndarray:
    """(n, 3, h, w) in [-1, 1] -> (n, h, w, 3) uint8."""
    values = (pictures.detach().permute(0, 2, 3, 1).float() * 127.5 + 127.5).round().clamp(0, 255)
    return values.to(torch.uint8).cpu().numpy()


def discriminator_loss(real: Tensor, generated: Tensor) -> Tensor:
    """L_D = 1/2 [mean (D(x) - 1)^2 + mean D(G(z))^2], from D's (B,) outputs."""
    return 0.5 * ((real - 1).square().mean() + generated.square().mean())


def generator_loss(generated: Tensor) -> Tensor:
    """L_G = mean (D(G(z)) - 1)^2, from D's (B,) outputs."""
    return (generated - 1).square().mean()


@dataclass(frozen=True, eq=False)
class GANTraining:
    """A trained GAN and how it came about.

    Attributes:
        gan: in inference mode.
        curve: one row an epoch: `epoch`, `discriminator_loss`, `generator_loss`, D's mean outputs `real` and
            `generated`, and `seconds`.
        folder: where weights, curve and sample sheets lie.
    """

    gan: GAN
    curve: pd.DataFrame
    folder: Path

    @property
    def sheets(self) -> list[Path]:
        """The sample sheets in the order of the epochs, the first one before training: PNG, one row a class."""
        return sorted((self.folder / "samples").glob("epoch-*.png"))

    def progress(self) -> np.ndarray:
        """The sheets' pictures: (epochs + 1, classes, codes, size, size, 3) uint8; the same codes in every epoch."""
        rows, size = len(self.gan.classes), self.gan.size
        sheets = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in self.sheets])
        return sheets.reshape(len(sheets), rows, size, -1, size, 3).swapaxes(2, 3)


def train_gan(
    pictures: Pictures,
    folder: Path,
    settings: GANSettings | None = None,
    *,
    seed: CountOrNone = 0,
    device: Device = "cpu",
    progress: bool = True,
) -> GANTraining:
    """Train a GAN, or open it if it was trained before; a training that was stopped goes on from its last epoch.

    A step draws pictures uniformly with replacement, and codes. The discriminator learns from the real pictures, then
    from those generated with their classes, in separate passes (each batch norm sees one kind at a time); then the
    generator learns from the updated discriminator with the same codes. The generated pictures of both halves are one
    and the same pass of the generator, whose weights have not changed between them. On the CPU the result depends on
    the seed alone.

    In the folder: `samples/epoch-<number>.png` (from the same codes after every epoch), `curve.csv` and
    `gan.safetensors` at the end, `training.safetensors` while training.

    Args:
        pictures: what to learn.
        folder: where to keep it.
        settings: by default those of the authors' code.
        seed: seeds weights, draws and codes.
        device: where to train.
        progress: show a progress bar.

    Raises:
        InputError: the folder holds another training, fewer pictures than a batch, a loss that is not finite, or see
            `GAN`.
    """
    settings = settings or GANSettings()
    folder, device = Path(folder), torch.device(device)
    if not 1 <= settings.batch_size <= len(pictures):
        raise InputError(f"a batch of {settings.batch_size} pictures cannot be drawn from {len(pictures)}.")
    what = {"size": pictures.size, "classes": list(pictures.names), "settings": asdict(settings), "seed": seed}
    identity = f"GAN {fingerprint(what, pictures.pixels, pictures.labels)}"
    if (folder / "gan.safetensors").exists():
        read_checkpoint(folder / "gan.safetensors", identity)
        return load_gan(folder, device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        gan = GAN(pictures.size, pictures.names, settings)
    gan.to(device)
    kept = copy.deepcopy(gan)  # the one that draws: its generator is the average, its discriminator the same
    kept.discriminator = gan.discriminator
    optimisers = [_adam(gan.generator, settings, 1.0), _adam(gan.discriminator, settings, settings.learning_rate_ratio)]
    random = torch.Generator(device).manual_seed(seed)
    n_classes = len(pictures.names)
    fixed = gan.draw(n_classes * SHEET_COLUMNS, torch.Generator(device).manual_seed(seed + 1))
    fixed_labels = torch.arange(n_classes).repeat_interleave(SHEET_COLUMNS)
    checkpoint = folder / "training.safetensors"
    rows: list[dict[str, float]] = []
    if checkpoint.exists():
        saved = read_checkpoint(checkpoint, identity, device)
        gan.load_state_dict(saved.group("gan"))
        kept.generator.load_state_dict(saved.group("average"))
        for name, optimiser in zip(("generator", "discriminator"), optimisers, strict=True):
            load_optimiser(optimiser, saved.group(name))
        random.set_state(saved.tensors["random.draws"].cpu())
        rows = saved.progress["curve"]
    else:
        _write_sheet(folder, 0, kept.sample(fixed, fixed_labels), n_classes)
    pixels, labels = torch.from_numpy(pictures.pixels).to(device), torch.from_numpy(pictures.labels).to(device)
    bar = progress_bar(range(len(rows), settings.epochs), desc="GAN", unit="epoch", disable=not progress)
    for epoch in bar:
        began = time.perf_counter()
        means = _epoch(gan, kept.generator, optimisers, pixels, labels, random)
        if not np.isfinite(means).all():
            raise InputError(f"the GAN's loss is no longer finite in epoch {epoch + 1}: lower the learning rate.")
        names = ("discriminator_loss", "generator_loss", "real", "generated")
        rows.append(
            {"epoch": epoch + 1, **dict(zip(names, means, strict=True)), "seconds": time.perf_counter() - began}
        )
        bar.set_postfix(discriminator=f"{means[0]:.3f}", generator=f"{means[1]:.3f}")
        _write_sheet(folder, epoch + 1, kept.sample(fixed, fixed_labels), n_classes)
        groups = {
            "gan": gan.state_dict(),
            "average": kept.generator.state_dict(),
            "random": {"draws": random.get_state()},
        }
        for name, optimiser in zip(("generator", "discriminator"), optimisers, strict=True):
            groups[name] = optimiser_tensors(optimiser)
        write_checkpoint(checkpoint, groups, {"curve": rows}, identity)
    with replacing(folder / "curve.csv") as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False)
    write_checkpoint(folder / "gan.safetensors", {"gan": kept.state_dict()}, what, identity)
    checkpoint.unlink(missing_ok=True)
    return load_gan(folder, device)


def load_gan(folder: Path, device: Device = "cpu") -> GANTraining:
    """Open a trained GAN.

    Raises:
        InputError: there is none in the folder, or it is damaged.
    """
    folder = Path(folder)
    saved = read_checkpoint(folder / "gan.safetensors", device=device)
    try:
        what: dict[str, Any] = saved.progress
        settings = GANSettings(**what["settings"] | {"betas": tuple(what["settings"]["betas"])})
        gan = GAN(what["size"], tuple(what["classes"]), settings)
        gan.load_state_dict(saved.group("gan"))
        curve = pd.read_csv(folder / "curve.csv")
    except (KeyError, TypeError, RuntimeError, OSError) as error:
        raise InputError(f"the GAN in {folder} is damaged ({error}): delete the folder and train again.") from None
    return GANTraining(gan.to(device).eval(), curve, folder)


def _adam(network: nn.Module, settings: GANSettings, ratio: float) -> torch.optim.Adam:
    return torch.optim.Adam(
        network.parameters(),
        lr=ratio * settings.learning_rate,
        betas=settings.betas,
        eps=settings.epsilon,
        weight_decay=settings.weight_decay,
        fused=True,
    )


def _epoch(
    gan: GAN,
    average: Generator,
    optimisers: list[torch.optim.Adam],
    pixels: Tensor,
    labels: Tensor,
    random: torch.Generator,
) -> list[float]:
    """One epoch; returns the means over its steps of both losses and of D's outputs."""
    gan.train()
    steps = max(1, len(pixels) // gan.settings.batch_size)
    means = torch.zeros(4, device=pixels.device)
    for real, classes, codes in _batches(gan, pixels, labels, random, steps):
        means += torch.stack(_step(gan, optimisers, real, classes, codes)) / steps
        _follow(average, gan.generator, gan.settings.averaging)
    gan.eval()
    return means.tolist()


@torch.no_grad()
def _follow(average: Generator, generator: Generator, decay: float) -> None:
    """The next moving average, of weights and of the batch norms' statistics."""
    for mean, value in zip(average.state_dict().values(), generator.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(value, 1 - decay)
        else:
            mean.copy_(value)  # numbers of batches


def _batches(
    gan: GAN, pixels: Tensor, labels: Tensor, random: torch.Generator, steps: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    for _ in range(steps):
        chosen = torch.randint(len(pixels), (gan.settings.batch_size,), generator=random, device=pixels.device)
        yield scaled(pixels[chosen]), labels[chosen], gan.draw(len(chosen), random)


def _step(gan: GAN, optimisers: list[torch.optim.Adam], real: Tensor, classes: Tensor, codes: Tensor) -> list[Tensor]:
    """One update of each network; returns both losses and D's mean outputs, for real and for generated pictures."""
    g_step, d_step = optimisers
    generated = gan.generator(codes, classes)
    on_real, on_generated = gan.discriminator(real, classes), gan.discriminator(generated.detach(), classes)
    d_loss = discriminator_loss(on_real, on_generated)
    d_step.zero_grad()
    d_loss.backward()
    d_step.step()
    gan.discriminator.requires_grad_(False)  # its gradients are not wanted in the generator's half
    g_loss = generator_loss(gan.discriminator(generated, classes))
    g_step.zero_grad()
    g_loss.backward()
    g_step.step()
    gan.discriminator.requires_grad_(True)
    return [value.detach() for value in (d_loss, g_loss, on_real.mean(), on_generated.mean())]


def _write_sheet(folder: Path, epoch: int, pictures: np.ndarray, rows: int) -> None:
    """A PNG of the pictures in `rows` rows, edge to edge."""
    size = pictures.shape[1]
    sheet = pictures.reshape(rows, -1, size, size, 3).swapaxes(1, 2).reshape(rows * size, -1, 3)
    with replacing(folder / "samples" / f"epoch-{epoch:04d}.png") as temporary:
        Image.fromarray(sheet).save(temporary, format="PNG")
