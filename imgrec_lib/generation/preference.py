"""Preference maximisation: the garment a generator can make that a user would like best (Kang et al. 2017, eq. 8)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from imgrec_lib.data.dataset import Dataset
from imgrec_lib.errors import InputError
from imgrec_lib.generation.gan import GAN, Pictures, as_pixels
from imgrec_lib.options import Count, CountOrNone, NotNegative, Positive


@runtime_checkable
class PictureScorer(Protocol):
    """A model that scores a picture which need not be an item's; DVBPR is one."""

    def score_pictures(self, users: Tensor, pictures: Tensor) -> Tensor:
        """(B,) int64 and (B, 3, h, h) float in [-1, 1] -> (B,), with a gradient for the pictures."""
        ...


@dataclass(frozen=True)
class PreferenceSettings:
    """How the code is optimised; the defaults are those of the authors' code.

    Attributes:
        starts: codes that are optimised side by side, each for itself.
        steps: of Adam.
        learning_rate: Adam's.
        eta: weight of the realism penalty.
        spread: standard deviation of the normal law of the starts.
        bound: "none", or "tanh": the generator gets tanh of what is optimised, so each coordinate lies in (-1, 1).
        selection: "best" keeps the start whose objective is highest in the end, "all" keeps all of them.
    """

    starts: Count = 16
    steps: CountOrNone = 10
    learning_rate: Positive = 0.05
    eta: NotNegative = 1.0
    spread: NotNegative = 0.5
    bound: Literal["none", "tanh"] = "none"
    selection: Literal["best", "all"] = "best"


@dataclass(frozen=True, eq=False)
class Design:
    """Garments designed for a user; T = steps + 1 (the start first) and S starts, or one, the best.

    Attributes:
        user: user index.
        label: class index of the GAN.
        pictures: (T, S, size, size, 3) uint8.
        preference: (T, S), the user's score of each of these pictures.
        realism_penalty: (T, S), (D - 1)^2 of each of them.
        objective: (T, S), preference - eta * realism_penalty.
        codes: (T, S, latent), as the generator got them.
    """

    user: int
    label: int
    pictures: np.ndarray
    preference: np.ndarray
    realism_penalty: np.ndarray
    objective: np.ndarray
    codes: np.ndarray


def design(
    gan: GAN,
    scorer: PictureScorer,
    user: CountOrNone,
    label: CountOrNone,
    settings: PreferenceSettings | None = None,
    *,
    seed: CountOrNone = 0,
) -> Design:
    """Maximise over z the preference s(u, G(z, y)) - eta (D(G(z, y), y) - 1)^2.

    Only z moves. All networks are in inference mode: no dropout, batch norms with their moving averages. Each start is
    optimised for itself (the objective is the sum over the starts), by an Adam that begins anew at each call. What
    is logged at a step belongs to that step's picture, the last one included. The preference is of the generator's
    own numbers; the pictures are these rounded to bytes.

    Args:
        gan: a trained GAN.
        scorer: a model on the same device.
        user: user index.
        label: class index y of the GAN.
        settings: by default those of the authors' code.
        seed: seeds the starts.

    Raises:
        InputError: an unknown bound or selection, no start, a negative number of steps, or no such class.
    """
    settings = settings or PreferenceSettings()
    if not 0 <= label < len(gan.classes):
        raise InputError(f"the GAN has classes 0 to {len(gan.classes) - 1}, not {label}.")
    random = torch.Generator().manual_seed(seed)
    # One by one: torch draws other numbers for the same rows of a larger matrix.
    rows = [torch.randn(gan.settings.latent, generator=random) for _ in range(settings.starts)]
    z = (settings.spread * torch.stack(rows)).to(gan.device).requires_grad_()
    users = torch.full((settings.starts,), user, device=gan.device)
    labels = torch.full((settings.starts,), label, device=gan.device)
    adam = torch.optim.Adam([z], lr=settings.learning_rate)
    log: list[tuple[np.ndarray, ...]] = []
    with _at_rest(gan, scorer):
        for step in range(settings.steps + 1):
            codes = torch.tanh(z) if settings.bound == "tanh" else z
            pictures = gan.generator(codes, labels)
            preference = scorer.score_pictures(users, pictures)
            penalty = (gan.discriminator(pictures, labels) - 1).square()
            objective = preference - settings.eta * penalty
            measured = (preference, penalty, objective, codes)
            log.append((as_pixels(pictures), *(value.detach().cpu().numpy().copy() for value in measured)))
            if step < settings.steps:
                adam.zero_grad()
                (-objective.sum()).backward()
                adam.step()
    pixels, preferences, penalties, objectives, path = (np.stack(column) for column in zip(*log, strict=True))
    kept = slice(None)
    if settings.selection == "best":
        best = int(objectives[-1].argmax())
        kept = slice(best, best + 1)
    return Design(
        user, label, pixels[:, kept], preferences[:, kept], penalties[:, kept], objectives[:, kept], path[:, kept]
    )


@contextmanager
def _at_rest(*networks: object) -> Iterator[None]:
    """All networks in inference mode and none of their weights with a gradient; afterwards as they were."""
    modules = [network for network in networks if isinstance(network, nn.Module)]
    modes = [module.training for module in modules]
    moving = [parameter for module in modules for parameter in module.parameters() if parameter.requires_grad]
    try:
        for module in modules:
            module.eval()
        for parameter in moving:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in moving:
            parameter.requires_grad_(True)
        for module, mode in zip(modules, modes, strict=True):
            module.train(mode)


def users_of_class(
    dataset: Dataset, pictures: Pictures, label: CountOrNone, n: Count, *, at_least: CountOrNone = 3
) -> list[int]:
    """Users for whom to design: those with most training items of a class.

    The authors take users with more than ten training items whose test item is of the class; here nothing held out is
    looked at.

    Args:
        dataset: gives the histories.
        pictures: gives names and numbers of the classes.
        label: class index.
        n: users wanted.
        at_least: training items of the class that a user must have.

    Returns:
        At most n user indices, most items first, of equal numbers the lower index.

    Raises:
        InputError: no user has so many.
    """
    codes, names = dataset.categories or (np.zeros(dataset.n_items, np.int64), ["all items"])
    of_class = codes[dataset.train.items] == names.index(pictures.names[label])
    counts = np.bincount(dataset.train.users[of_class], minlength=dataset.n_users)
    order = np.argsort(-counts, kind="stable")[:n]
    users = [int(user) for user in order if counts[user] >= at_least]
    if not users:
        raise InputError(
            f"no user has {at_least} training items of the class {pictures.names[label]!r}: choose another class."
        )
    return users
