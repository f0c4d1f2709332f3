"""What the models on a graph of purchases share, by slow loops."""

from __future__ import annotations

import math

import numpy as np

from imgrec_lib.data.dataset import Interactions
from imgrec_lib.models.base import Recommender
from imgrec_lib.models.bm3 import BM3
from imgrec_lib.models.freedom import FREEDOM
from imgrec_lib.models.parts.modality import Modality


def by_neighbours(model: Recommender, interactions: Interactions, layers: int) -> tuple[np.ndarray, np.ndarray]:
    """The averages over the layers, node by node (He et al. 2020, equations 3 and 4)."""
    items_of = [interactions.of(u).tolist() for u in range(interactions.n_users)]
    users_of = [[u for u, items in enumerate(items_of) if i in items] for i in range(interactions.n_items)]
    users, items = (model.get_parameter(name).detach().numpy() for name in ("users", "items"))
    total = users.copy(), items.copy()
    for _ in range(layers):
        new_users, new_items = np.zeros_like(users), np.zeros_like(items)
        for u, owned in enumerate(items_of):
            for i in owned:
                new_users[u] += items[i] / math.sqrt(len(owned) * len(users_of[i]))
        for i, buyers in enumerate(users_of):
            for u in buyers:
                new_items[i] += users[u] / math.sqrt(len(buyers) * len(items_of[u]))
        users, items = new_users, new_items
        total[0][:] += users
        total[1][:] += items
    return total[0] / (layers + 1), total[1] / (layers + 1)


def picture_of(model: BM3 | FREEDOM) -> Modality:
    """The modality of an item's picture."""
    picture = model.modalities["picture"]
    assert isinstance(picture, Modality)
    return picture
