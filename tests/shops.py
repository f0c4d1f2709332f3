"""Small data in the layouts of the readers, and what is asked of every dataset that they give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from imgrec_lib.data import load_dataset
from imgrec_lib.data.dataset import Dataset


def load(name: str, root: Path | None, **options: Any) -> Dataset:
    return load_dataset(name, root, **{"image_size": 8, "progress": False, "min_interactions": 3, **options})


def owned(dataset: Dataset) -> dict[str, set[str]]:
    """Ids of all items of each user, by the user's id."""
    items = dataset.items["item"].to_numpy()
    train, held_out = dataset.train, (dataset.validation, dataset.test)
    return {
        str(user): {
            items[i] for part in (train.of(u), *(held.flat[held.users == u] for held in held_out)) for i in part
        }
        for u, user in enumerate(dataset.user_ids)
    }


@pytest.fixture
def hm(tmp_path: Path) -> Path:
    articles = [f"01{i:08}" for i in range(6)]
    text = {
        name: [f"{name} {i % 2}" for i in range(6)]
        for name in [
            "prod_name",
            "product_type_name",
            "product_group_name",
            "graphical_appearance_name",
            "colour_group_name",
            "perceived_colour_master_name",
            "index_name",
            "section_name",
            "garment_group_name",
            "detail_desc",
        ]
    }
    pd.DataFrame({"article_id": articles, "product_code": 1, **text}).to_csv(tmp_path / "articles.csv", index=False)
    purchases = [
        ("2020-09-17", "ann", 0), ("2020-09-16", "ann", 1), ("2020-09-18", "ann", 2), ("2020-09-18", "ann", 2),
        ("2020-09-16", "bob", 1), ("2020-09-17", "bob", 2), ("2020-09-19", "bob", 3), ("2020-09-20", "bob", 5),
        ("2020-09-16", "eve", 0), ("2020-09-16", "eve", 1), ("2020-09-16", "eve", 5),
    ]  # fmt: skip
    pd.DataFrame(
        [(day, customer, articles[i], 0.01, 2) for day, customer, i in purchases],
        columns=["t_dat", "customer_id", "article_id", "price", "sales_channel_id"],
    ).to_csv(tmp_path / "transactions_train.csv", index=False)
    folder = tmp_path / "images" / "010"
    folder.mkdir(parents=True)
    for i in range(5):  # article 5 has no photograph
        Image.new("RGB", (6, 9), (40 * i, 0, 0)).save(folder / f"{articles[i]}.jpg")
    return tmp_path
