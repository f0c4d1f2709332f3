"""Readers of data sets: a new one is one file, and one line here.

A package of its own may add readers too: by an entry point of the group `imgrec.datasets` that names a `DatasetCard`,
which every process finds, or by `register_dataset`, for the process that calls it.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imgrec_lib.additions import Additions
from imgrec_lib.data.dataset import Dataset
from imgrec_lib.errors import InputError, unknown_name
from imgrec_lib.options import Option, admits, check_calls, check_options, options_of

__all__ = [
    "CARDS",
    "Dataset",
    "DatasetCard",
    "check_dataset_options",
    "list_datasets",
    "load_dataset",
    "register_dataset",
]


@dataclass(frozen=True)
class DatasetCard:
    """A dataset reader as the registry knows it.

    Attributes:
        name: the name by which it is chosen ("hm").
        title: what it reads, in a line.
        root: what `root` must be; empty for a reader that needs none.
        module, function: where the reader is; imported when used.
        reads_without_root: options any of which names the data in place of `root`.
    """

    name: str
    title: str
    root: str
    module: str
    function: str
    reads_without_root: frozenset[str] = frozenset()

    @property
    def load(self) -> Callable[..., Dataset]:
        """The reader."""
        loader: Callable[..., Dataset] = getattr(importlib.import_module(self.module), self.function)
        return loader

    @property
    def options(self) -> dict[str, Option]:
        """The reader's options by name."""
        return options_of(self.load)


CARDS = (
    DatasetCard(
        "wardrobe",
        "drawn garments and simulated users with known tastes; needs no files",
        "",
        "imgrec_lib.data.readers.wardrobe.world",
        "load_wardrobe",
    ),
    DatasetCard(
        "hm",
        "purchases and photographs of the H&M competition",
        "the folder with transactions_train.csv, articles.csv and images/",
        "imgrec_lib.data.readers.hm",
        "load_hm",
    ),
    DatasetCard(
        "dvbpr",
        "Amazon Fashion, Men and Women, and Tradesy, as published with DVBPR",
        "the published .npy file",
        "imgrec_lib.data.readers.dvbpr",
        "load_dvbpr",
    ),
    DatasetCard(
        "amazon2023",
        "a category of Amazon Reviews 2023: ratings or reviews, metadata, pictures by their addresses",
        "the folder with <Category>.csv.gz and meta_<Category>.jsonl.gz",
        "imgrec_lib.data.readers.amazon2023",
        "load_amazon2023",
    ),
    DatasetCard(
        "covers",
        "PixelRec, NineRec and MicroLens: interactions and a folder of covers named by item",
        "the folder with the table of interactions and the covers",
        "imgrec_lib.data.readers.covers",
        "load_covers",
    ),
    DatasetCard(
        "table",
        "your own catalogue: CSV or Parquet tables and a folder of pictures",
        "the folder with interactions.csv, items.csv and images/",
        "imgrec_lib.data.readers.table",
        "load_table",
        frozenset({"interactions", "train"}),
    ),
)


_added: Additions[DatasetCard] = Additions("imgrec.datasets", DatasetCard, [card.name for card in CARDS])


def register_dataset(card: DatasetCard) -> None:
    """Add a dataset reader for this process; a card of the same name that was added so before is replaced.

    Raises:
        InputError: the name is taken by a reader of imgrec's, or this is no card.

    Example:
        >>> from imgrec_lib import DatasetCard, list_datasets, register_dataset
        >>> register_dataset(DatasetCard("ours", "our shop", "its folder", "our_package.reader", "load_shop"))
        >>> "ours" in list_datasets()
        True
    """
    _added.register(card)


def list_datasets() -> dict[str, DatasetCard]:
    """All dataset readers by name; those of other packages come last.

    Raises:
        InputError: an installed package announces a reader that cannot be imported, or whose name is taken.

    Example:
        >>> from imgrec_lib import list_datasets
        >>> list_datasets()["wardrobe"].title
        'drawn garments and simulated users with known tastes; needs no files'
    """
    return {card.name: card for card in CARDS} | _added.by_name()


def load_dataset(name: str, /, root: str | Path | None = None, **options: Any) -> Dataset:
    """Read a dataset.

    Args:
        name: one of `list_datasets()`.
        root: the file or folder that the reader needs; `~` is the user's home, as in options that are paths.
        options: the reader's keyword arguments, such as `min_interactions`, `split` and `seed`.

    Raises:
        InputError: unknown dataset or option (with a suggestion), a root that is missing or not needed, or
            what the reader itself refuses.

    Example:
        >>> from imgrec_lib import load_dataset
        >>> dataset = load_dataset("wardrobe", n_users=40, n_items=50, image_size=32, progress=False)
        >>> dataset.n_users, dataset.n_items, dataset.images.pixels.shape
        (40, 50, (50, 32, 32, 3))
    """
    check_dataset_options(name, root, options)
    card = list_datasets()[name]
    for key, value in options.items():
        if isinstance(value, str) and admits(card.options[key].type, Path):
            options[key] = os.path.expanduser(value)
    return card.load(os.path.expanduser(root) if root else root, **options) if card.root else card.load(**options)


def check_dataset_options(name: str, root: str | Path | None, options: Mapping[str, Any]) -> None:
    """Refuse, without reading anything, arguments that `load_dataset` does not take.

    Raises:
        InputError: unknown dataset or option (with a suggestion), a value of another type or out of its bounds, or a
            root that is missing or not needed.
    """
    datasets = list_datasets()
    if name not in datasets:
        raise unknown_name("dataset", name, datasets)
    card = datasets[name]
    check_options(f"dataset {name}", card.options, options, "option")
    if not card.root and root is not None:
        raise InputError(f"dataset {name!r} needs no root: leave it out.")
    if card.root and root is None and not card.reads_without_root.intersection(options):
        raise InputError(f"dataset {name!r} needs a root: {card.root}.")


check_calls(__name__)
