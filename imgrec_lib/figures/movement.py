"""What further training changed in the items' space: which items moved, and whose neighbours changed."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch.nn.functional as F
from torch import Tensor

from imgrec_lib.data.dataset import Dataset
from imgrec_lib.evaluation.neighbours import search_neighbours
from imgrec_lib.gallery.gallery import Gallery
from imgrec_lib.gallery.views import neighbour_gallery, side_by_side
from imgrec_lib.options import Count


def item_movement(dataset: Dataset, before: Tensor, after: Tensor, k: Count = 10) -> pd.DataFrame:
    """How far each item moved between two sets of embeddings in one space, the second trained from the first.

    Args:
        dataset: gives the popularity.
        before, after: (n_items, d) item embeddings.
        k: neighbours compared.

    Returns:
        One row an item, in index order: `moved` (1 - cosine of its two embeddings), `neighbours_kept` (share of its k
        nearest neighbours before that are so after) and `popularity` (training interactions).
    """
    cosine = F.cosine_similarity(before.float(), after.float(), dim=1).cpu().numpy()
    kept = []
    for part in np.array_split(np.arange(dataset.n_items), -(-dataset.n_items // 1024)):
        old, new = (search_neighbours(vectors, part, k).items for vectors in (before, after))
        kept.append((old[:, :, None] == new[:, None]).any(2).mean(1))
    return pd.DataFrame(
        {"moved": 1 - cosine, "neighbours_kept": np.concatenate(kept), "popularity": dataset.train.popularity}
    )


def movement_by_popularity(movement: pd.DataFrame) -> pd.DataFrame:
    """Means of `item_movement` by training interactions of the item; one row a band that has items."""
    starts = [0, 1, 2, 5, 10, 20, np.inf]
    labels = ["0", "1", "2-4", "5-9", "10-19", "20+"]
    bands = pd.cut(movement["popularity"], starts, right=False, labels=labels)
    groups = movement.groupby(bands, observed=True)
    table = groups[["moved", "neighbours_kept"]].mean()
    table.insert(0, "items", groups.size())
    return table.rename_axis("training interactions")


def movement_gallery(
    dataset: Dataset,
    before: Tensor,
    after: Tensor,
    items: np.ndarray,
    k: Count = 7,
    titles: tuple[str, str] = ("before", "after"),
) -> Gallery:
    """The given items with their nearest neighbours before and after, two rows each."""
    old, new = (
        neighbour_gallery(dataset, vectors, items.tolist(), k, title)
        for vectors, title in zip((before, after), titles, strict=True)
    )
    return side_by_side("Nearest items before and after", old, new)
