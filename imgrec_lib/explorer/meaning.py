"""Search by meaning: the pictures that words describe, where an image-text encoder made the features."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from imgrec_lib.errors import InputError
from imgrec_lib.evaluation.neighbours import nearest_to
from imgrec_lib.serving import Trained
from imgrec_lib.serving.pictures import backbone_of

READERS = ("hf/", "open_clip/")
"""How the names of backbones begin of which some read text; the others need not be opened to know that they do not."""


@lru_cache(64)
def by_meaning(opened: Trained, text: str) -> tuple[np.ndarray, np.ndarray] | None:
    """All items, by how well words describe their pictures.

    Args:
        opened: the run.
        text: words.

    Returns:
        Items (n_items,) int64 and the cosines (n_items,) float32 of their features with the words' vector, best first;
        None where no image-text encoder made the features.
    """
    if opened.features is None or not opened.run.request.backbone.startswith(READERS):
        return None
    try:
        query = backbone_of(opened).encode_text([text])[0]
    except InputError:
        return None
    if len(query) != opened.features.values.shape[1]:
        return None
    return nearest_to(opened.features.values, query, opened.dataset.n_items)
