"""Cold start: an item of which there is a picture alone, in a trained model, without training."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from imgrec_lib.data.decoding import FORMATS_IN_WORDS, MAX_BYTES, original_picture
from imgrec_lib.data.images import ImageStore
from imgrec_lib.errors import InputError
from imgrec_lib.files import cache_folder, fingerprint, replacing
from imgrec_lib.models.base import Extensible, InnerProduct, PictureEmbedding, Scorer
from imgrec_lib.serving import Trained
from imgrec_lib.serving.pictures import features_of, other_sets, picture_set, read_picture

KEPT_SIDE = 1024
"""The longer side of a kept picture, at most, in pixels."""


@dataclass(frozen=True, eq=False)
class NewItem:
    """A picture as an item that nobody has bought.

    Attributes:
        shown: (height, width, 3) uint8, the picture as people see it.
        pixels: (size, size, 3) uint8, as the image store would hold it and networks see it.
        feature: (d,) float32, as the catalogue's features of pictures.
        learned: its vector in `Trained.learned`, or None where the model has none.
        scores: (n_users,) float32: every user's score for it; None where the model cannot score pictures.
        places: (n_users,) int64: its place among the items that the user has not bought, from 1; ties count half, as
            in the AUC, rounded down; None likewise.
        lacks: what the model needs of an item to score it that this one does not have, in words; empty for nothing.
    """

    shown: np.ndarray
    pixels: np.ndarray
    feature: Tensor
    learned: Tensor | None
    scores: np.ndarray | None
    places: np.ndarray | None
    lacks: str = ""


def keep_picture(source: Path | bytes) -> str:
    """Keep a picture that somebody gave, decoded and written anew as a PNG in the cache: the file itself is not kept.

    Args:
        source: a file, or the bytes of one.

    Returns:
        The name by which `picture_path` finds it, which follows from its pixels.

    Raises:
        InputError: this is no picture that can be read.
    """
    with _sentence():
        image = original_picture(source, KEPT_SIDE)
    name = f"picture-{fingerprint(np.asarray(image))[:12]}"
    with replacing(_kept() / f"{name}.png") as temporary:
        image.save(temporary, format="PNG")
    return name


def picture_path(name: str) -> Path:
    """Where a picture lies that `keep_picture` has kept.

    Raises:
        InputError: it is there no more, or no picture is ever called so.
    """
    path = _kept() / f"{name}.png"
    if not re.fullmatch(r"picture-[0-9a-f]{12}", name) or not path.is_file():
        raise InputError(f"there is no picture {name!r} any more: give it again.")
    return path


def _kept() -> Path:
    return cache_folder(None, "pictures")


def _images(opened: Trained) -> ImageStore:
    if opened.dataset.images is None:
        raise InputError(f"dataset {opened.dataset.name!r} has no pictures: a picture can be compared with nothing.")
    return opened.dataset.images


@contextmanager
def _sentence() -> Iterator[None]:
    """What is wrong with a picture, as a sentence with a remedy."""
    try:
        yield
    except ValueError as error:
        raise InputError(f"{error}: choose a {FORMATS_IN_WORDS} below {MAX_BYTES // 10**6} MB.") from None


@lru_cache(16)
def new_item(opened: Trained, name: str, user_block: int = 512) -> NewItem:
    """Embed a picture that was kept with the run's backbone and trained layers, and rank it for every user.

    Args:
        opened: the run.
        name: see `keep_picture`.
        user_block: users ranked at a time.

    Raises:
        InputError: see `read_picture` and `picture_path`.
    """
    path = picture_path(name)
    return _embedded(opened, read_picture(opened, path), np.asarray(original_picture(path, KEPT_SIDE)), user_block)


@lru_cache(16)
def item_anew(opened: Trained, item: int, user_block: int = 512) -> NewItem:
    """An item of the catalogue as if nobody had bought it: known by its first picture, and by its own features of what
    the run knows beside pictures; otherwise as `new_item`.

    Raises:
        InputError: it has no picture.
    """
    images = _images(opened)
    if not images.present[item]:
        raise InputError(f"item {opened.item_ids[item]} has no picture: choose another one.")
    shown = np.asarray(images.photograph(item, KEPT_SIDE))
    return _embedded(opened, np.asarray(images.pixels[item]), shown, user_block, item)


def embed(opened: Trained, pixels: np.ndarray, item: int | None = None) -> tuple[Tensor, Tensor | None]:
    """Pictures through the run's backbone and trained layers.

    Args:
        opened: the run.
        pixels: (P, size, size, 3) uint8, as in the image store.
        item: whose pictures they are taken for: it has the features of all other sets; None for no item's.

    Returns:
        (P, d) float32 features of pictures, and the (P, k) float32 rows by which the scorer takes them in; None where
        the model cannot score pictures, or needs other features beside them.

    Raises:
        InputError: see `picture_set`.
    """
    batch = torch.from_numpy(np.array(pixels))
    features = whole = features_of(opened, batch)
    if not isinstance(opened.model, PictureEmbedding) or not isinstance(opened.scorer, Extensible):
        return features, None
    if other_sets(opened):
        if item is None:
            return features, None
        own = {name: torch.from_numpy(np.array(values[item])) for name, values in opened.feature_sets.items()}
        own[picture_set(opened)] = features
        whole = torch.cat([values.expand(len(features), -1) for values in own.values()], 1)
    with torch.no_grad():
        return features, opened.model.embed_pictures(batch, whole)


def _embedded(
    opened: Trained, pixels: np.ndarray, shown: np.ndarray, user_block: int, item: int | None = None
) -> NewItem:
    features, row = embed(opened, pixels[None], item)
    feature = features[0]
    if row is None or not isinstance(opened.scorer, Extensible):
        needed = [*other_sets(opened)] if isinstance(opened.model, PictureEmbedding) else ["id"]
        return NewItem(shown, pixels, feature, None, None, None, f"an item's {' and '.join(needed)}")
    learned = None
    if isinstance(opened.scorer, InnerProduct) and opened.learned is not None:
        learned = row[0] * opened.scorer.personal()
    scores, places = _places_of_last(opened.scorer.extended(row), opened, user_block)
    return NewItem(shown, pixels, feature, learned, scores, places)


@torch.no_grad()
def _places_of_last(scorer: Scorer, opened: Trained, user_block: int) -> tuple[np.ndarray, np.ndarray]:
    """Score of the scorer's last item for every user, and its place among what the user has not bought."""
    train = opened.dataset.train
    all_scores, all_places = [], []
    for users in torch.arange(train.n_users).split(user_block):
        block = scorer.block(users)
        own = block[:, -1:].clone()
        first, last = train.indptr[int(users[0])], train.indptr[int(users[-1]) + 1]
        rows = np.repeat(np.arange(len(users)), train.history_lengths[users.numpy()])
        block[torch.from_numpy(rows), torch.from_numpy(train.items[first:last])] = -torch.inf
        higher, tied = (block > own).sum(1), (block == own).sum(1) - 1
        all_scores.append(own[:, 0])
        all_places.append(higher + tied // 2 + 1)
    return torch.cat(all_scores).numpy(), torch.cat(all_places).numpy()
