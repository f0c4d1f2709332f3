"""Search by meaning: the pictures that words describe, where an image-text encoder made the features."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch

from imgrec_lib.errors import InputError
from imgrec_lib.evaluation.neighbours import nearest_to
from imgrec_lib.serving import Trained
from imgrec_lib.serving.pictures import backbone_of, picture_set

READERS = ("hf/", "open_clip/")
"""How the names of backbones begin of which some read text; the others need not be opened to know that they do not."""


@lru_cache(64)
def by_meaning(opened: Trained, text: str) -> tuple[np.ndarray, np.ndarray] | None:
    """All items, by how well words describe their pictures.

    Args:
        opened: the run.
        text: words.

    Returns:
        Items (n_items,) int64 and the cosines (n_items,) float32 of their set of features of pictures with the
        words' vector, prepared as they were, best first; None where no image-text encoder made one.
    """
    if opened.features is None or not opened.run.request.backbone.startswith(READERS):
        return None
    try:
        name, query = picture_set(opened), backbone_of(opened).encode_text([text]).numpy()
    except InputError:
        return None
    if name in opened.features.preparations:
        query = opened.features.preparations[name](query)
    return nearest_to(opened.feature_sets[name], torch.from_numpy(query[0]), opened.dataset.n_items)
