"""Readers of data sets: a new one is one file, and one line here."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from imgrec_lib.data.dataset import Dataset
from imgrec_lib.errors import InputError, shown, unknown_name


@dataclass(frozen=True)
class DatasetCard:
    """A dataset reader as the registry knows it.

    Attributes:
        name: the name by which it is chosen ("hm").
        title: what it reads, in a line.
        root: what `root` must be; empty for a reader that needs none.
        module, function: where the reader is; imported when used.
    """

    name: str
    title: str
    root: str
    module: str
    function: str

    @property
    def load(self) -> Callable[..., Dataset]:
        """The reader."""
        loader: Callable[..., Dataset] = getattr(importlib.import_module(self.module), self.function)
        return loader

    @property
    def options(self) -> dict[str, Any]:
        """Names of the reader's options and their defaults."""
        parameters = inspect.signature(self.load).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


CARDS = (
    DatasetCard(
        "wardrobe",
        "drawn garments and simulated users with known tastes; needs no files",
        "",
        "imgrec_lib.data.wardrobe",
        "load_wardrobe",
    ),
    DatasetCard(
        "hm",
        "purchases and photographs of the H&M competition",
        "the folder with transactions_train.csv, articles.csv and images/",
        "imgrec_lib.data.hm",
        "load_hm",
    ),
    DatasetCard(
        "dvbpr",
        "Amazon Fashion, Men and Women, and Tradesy, as published with DVBPR",
        "the published .npy file",
        "imgrec_lib.data.dvbpr",
        "load_dvbpr",
    ),
    DatasetCard(
        "table",
        "your own catalogue: CSV or Parquet tables and a folder of pictures",
        "the folder with interactions.csv, items.csv and images/",
        "imgrec_lib.data.table",
        "load_table",
    ),
)


def list_datasets() -> dict[str, DatasetCard]:
    """All dataset readers by name."""
    return {card.name: card for card in CARDS}


def load_dataset(name: str, /, root: str | Path | None = None, **options: Any) -> Dataset:
    """Read a dataset.

    Args:
        name: one of `list_datasets()`.
        root: the file or folder that the reader needs.
        options: the reader's keyword arguments, such as `min_interactions`, `split` and `seed`.

    Raises:
        InputError: unknown dataset or option (with a suggestion), a root that is missing or not needed, or
            what the reader itself refuses.
    """
    datasets = list_datasets()
    if name not in datasets:
        raise unknown_name("dataset", name, datasets)
    card = datasets[name]
    known = card.options
    types = get_type_hints(card.load)
    for option, value in options.items():
        if option not in known:
            raise unknown_name(f"option of dataset {name}", option, known)
        fits = isinstance(value, (types[option], int) if types[option] is float else types[option])
        if not fits or (isinstance(value, bool) and types[option] is not bool):
            wanted = getattr(types[option], "__name__", str(types[option]))
            raise InputError(f"option {option!r} of dataset {name} must be {wanted}, not {shown(value)}.")
    if not card.root:
        if root is not None:
            raise InputError(f"dataset {name!r} needs no root: leave it out.")
        return card.load(**options)
    if root is None and not (name == "table" and {"interactions", "train"} & options.keys()):
        raise InputError(f"dataset {name!r} needs a root: {card.root}.")
    return card.load(root, **options)
