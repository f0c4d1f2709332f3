"""Cold start: an item of which there is a picture alone, in a trained model, without training."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from imgrec_lib.files import fingerprint, replacing
from imgrec_lib.models.base import Extensible, InnerProduct, PictureEmbedding, Scorer
from imgrec_lib.serving import Trained
from imgrec_lib.serving.pictures import backbone_of, read_picture


@dataclass(frozen=True, eq=False)
class NewItem:
    """A picture as an item that nobody has bought.

    Attributes:
        pixels: (size, size, 3) uint8, as the image store would hold it.
        feature: (n_features,) float32, as the catalogue's.
        learned: its vector in `Trained.learned`, or None where the model has none.
        scores: (n_users,) float32: every user's score for it; None where the model cannot score pictures.
        places: (n_users,) int64: its place among the items that the user has not bought, from 1; ties count half, as
            in the AUC, rounded down; None likewise.
    """

    pixels: np.ndarray
    feature: Tensor
    learned: Tensor | None
    scores: np.ndarray | None
    places: np.ndarray | None


def keep_picture(pixels: np.ndarray, folder: Path) -> Path:
    """Write a decoded picture as a PNG, under a name that follows from its pixels: an upload itself is never kept.

    Args:
        pixels: (size, size, 3) uint8.
        folder: where the file goes.
    """
    path = folder / f"picture-{fingerprint(pixels)[:8]}.png"
    with replacing(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG")
    return path


@lru_cache(16)
def new_item(opened: Trained, path: Path, user_block: int = 512) -> NewItem:
    """Embed a picture with the run's backbone and trained layers, and rank it for every user.

    Args:
        opened: the run.
        path: a picture file.
        user_block: users ranked at a time.

    Raises:
        InputError: see `read_picture`.
    """
    pixels = read_picture(opened, path)
    batch = torch.from_numpy(pixels[None].copy())
    with torch.no_grad():
        features = backbone_of(opened)(batch)
    feature = features[0]
    if not isinstance(opened.model, PictureEmbedding) or not isinstance(opened.scorer, Extensible):
        return NewItem(pixels, feature, None, None, None)
    with torch.no_grad():
        row = opened.model.embed_pictures(batch, features)
        scorer = opened.scorer.extended(row)
    learned = None
    if isinstance(opened.scorer, InnerProduct) and opened.learned is not None:
        learned = row[0] * opened.scorer.personal()
    scores, places = _places_of_last(scorer, opened, user_block)
    return NewItem(pixels, feature, learned, scores, places)


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
