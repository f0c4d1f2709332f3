"""What a data set is like, in numbers: the rows of Table 1."""

from __future__ import annotations

import numpy as np
import pandas as pd

from imgrec_lib.data.dataset import Dataset


def dataset_table(dataset: Dataset) -> pd.DataFrame:
    """Table 1 of the ImgRec paper (users, items, interactions), and what else tells how hard the data is.

    Density is interactions / (users x items), held-out ones included; a cold item has no training
    interaction.

    Args:
        dataset: any dataset.

    Returns:
        One row; shares are fractions of 1.
    """
    held_out = np.concatenate([dataset.validation.flat, dataset.test.flat])
    interactions = len(dataset.train) + len(held_out)
    cold = dataset.train.popularity == 0
    images = dataset.images
    return pd.DataFrame(
        {
            "dataset": [dataset.name],
            "users": [dataset.n_users],
            "items": [dataset.n_items],
            "interactions": [interactions],
            "density": [interactions / (dataset.n_users * dataset.n_items)],
            "training interactions per user": [len(dataset.train) / dataset.n_users],
            "training interactions per item": [len(dataset.train) / dataset.n_items],
            "cold items": [int(cold.sum())],
            "cold items, share": [float(cold.mean())],
            "held-out interactions on cold items, share": [float(cold[held_out].mean())],
            "items without a picture": [
                dataset.n_items if images is None else sum(not images.shows(item) for item in range(dataset.n_items))
            ],
        }
    )
