"""Features of what the item table says: words, categories and numbers such as prices."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from imgrec_lib.data.dataset import Columns, Dataset
from imgrec_lib.data.values import numbers_of, value_codes
from imgrec_lib.devices import Device
from imgrec_lib.errors import InputError, one_line, tell, unknown_name
from imgrec_lib.extras import require
from imgrec_lib.features.extraction import Features
from imgrec_lib.files import cache_folder, cached, fingerprint, replacing
from imgrec_lib.options import Count

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

TFIDF = "tfidf"
"""The encoder of texts that needs no network: weighted words, reduced by a singular value decomposition."""

MOST_VALUES = 1000
"""Values of categories that become features, the most frequent ones."""


def text_features(
    dataset: Dataset,
    *,
    text_columns: list[str] | None = None,
    text_encoder: str = TFIDF,
    text_components: Count = 128,
    device: Device = "cpu",
    cache: str | Path | None = None,
    progress: bool = True,
) -> Features:
    """Features of the words in an item table, which are kept in the cache.

    An item's text is what its columns say, one after the other. By default it becomes TF-IDF weights of its words and
    pairs of words, without those that only one item has, and these the coordinates of a truncated singular value
    decomposition (latent semantic analysis, Deerwester et al. 1990), by scikit-learn.

    Args:
        dataset: whose item table is read; nothing else of it is.
        text_columns: columns of the item table; by default the name, the description, the category and all attributes
            that are no numbers.
        text_encoder: "tfidf"; or the name or folder of a model of sentence-transformers (an extra), such as
            "sentence-transformers/all-MiniLM-L6-v2".
        text_components: dimensions of the decomposition, at most; without effect on another encoder.
        device: where another encoder runs.
        cache: the cache folder; by default `default_cache()`.
        progress: whether to show a progress bar.

    Returns:
        The features, memory-mapped; rows of zeros are items without a word that another item has.

    Raises:
        InputError: there is no such column or encoder, or there are no words.

    Example:
        >>> from imgrec_lib import load_dataset
        >>> from imgrec_lib.features import text_features
        >>> dataset = load_dataset("wardrobe", n_users=40, n_items=50, image_size=32, progress=False)
        >>> text_features(dataset, text_components=16).values.shape
        (50, 16)
    """
    columns = _columns(dataset, text_columns, numbers=False, described=True)
    if not columns:
        raise InputError(f"the item table of dataset {dataset.name!r} has no column of words: add one, such as 'name'.")
    cells = dataset.items[columns].fillna("").astype(str)
    texts = cells.agg(" ".join, axis=1).str.split().str.join(" ").tolist()
    called = Path(text_encoder).name if Path(text_encoder).is_dir() else text_encoder
    what = {"text_columns": ", ".join(columns), "text_encoder": called}
    words = fingerprint(texts)
    if text_encoder == TFIDF:
        what["text_components"] = str(text_components)
        return _cached(what | {"text_content": words}, cache, lambda: _latent(texts, text_components))
    encoder = _sentence_encoder(text_encoder, device)
    # The weights' content counts, not what their folder is called.
    state = [weights.cpu().numpy() for weights in encoder.state_dict().values()]
    what |= {"text_weights": fingerprint(*state), "text_content": words}

    def encode() -> np.ndarray:
        values = encoder.encode(texts, show_progress_bar=progress, convert_to_numpy=True)
        return np.where(np.array([[bool(text)] for text in texts]), values, 0)

    return _cached(what, cache, encode, {"text_encoder"})


def category_features(dataset: Dataset, *, category_columns: list[str] | None = None) -> Features:
    """A feature for each value in some columns of the item table: 1 for the items that have it, else 0.

    Args:
        dataset: whose item table is read.
        category_columns: columns of the item table; by default the category and all attributes that are no numbers.

    Returns:
        The features, in memory. Values of one item alone are left out, and all but the `MOST_VALUES` most frequent.

    Raises:
        InputError: there is no such column, or no value that two items share.
    """
    columns = _columns(dataset, category_columns, numbers=False, described=False)
    cells = [dataset.items[column].fillna("").astype(str) for column in columns]
    if not columns or not any(cell.duplicated().any() for cell in cells):
        raise InputError(
            f"the item table of dataset {dataset.name!r} has no category or attribute that items share: add a column."
        )
    codes = value_codes(cells)
    values_of = [(column, value) for column, cell in zip(columns, cells, strict=True) for value in np.unique(cell)]
    names = np.array([f"{column} {value}" for column, value in values_of])
    count = np.bincount(codes.ravel(), minlength=len(names)) * np.array([value != "" for _, value in values_of])
    shared = np.flatnonzero(count >= 2)
    kept = np.sort(shared[np.argsort(-count[shared], kind="stable")][:MOST_VALUES])
    if len(kept) < len(shared):
        tell(f"of {len(shared):,} values of {', '.join(columns)} the {len(kept):,} most frequent become features.")
    place = np.full(len(names), len(kept))
    place[kept] = np.arange(len(kept))
    values = np.zeros((dataset.n_items, len(kept) + 1), np.float32)
    np.put_along_axis(values, place[codes], 1, axis=1)
    values = np.ascontiguousarray(values[:, :-1])
    digits = fingerprint(values, names[kept])
    what = {"category_columns": ", ".join(columns), "category_content": digits}
    return _of_table("categories", values, what, digits)


def number_features(dataset: Dataset, *, number_columns: list[str] | None = None) -> Features:
    """The numbers in some columns of the item table, such as prices, each column to mean 0 and standard deviation 1.

    Of columns without negative numbers the logarithm of 1 + x is taken first: prices spread over orders of magnitude.

    Args:
        dataset: whose item table is read.
        number_columns: columns of the item table; by default all attributes that hold nothing but numbers.

    Returns:
        The features, in memory. An empty cell counts as the mean of the others.

    Raises:
        InputError: there is no such column, or one that holds something else.
    """
    columns = _columns(dataset, number_columns, numbers=True, described=False)
    if not columns:
        raise InputError(
            f"the item table of dataset {dataset.name!r} has no column of numbers: add one, such as 'price'."
        )
    parts = []
    for column in columns:
        numbers = numbers_of(dataset.items[column])
        if numbers is None:
            raise InputError(
                f"column {column!r} of the item table holds not only numbers: leave it out, or correct it."
            )
        numbers = np.log1p(numbers) if np.nanmin(numbers) >= 0 else numbers
        spread = np.nanstd(numbers)
        parts.append(np.nan_to_num((numbers - np.nanmean(numbers)) / (spread or 1)))
    values = np.stack(parts, 1).astype(np.float32)
    what = {"number_columns": ", ".join(columns), "number_content": fingerprint(values)}
    return _of_table("numbers", values, what, fingerprint(values))


def _columns(dataset: Dataset, wanted: list | None, *, numbers: bool, described: bool) -> list[str]:
    """The columns that are asked for; by default those of numbers, or those of categories, with or without texts."""
    table = dataset.items
    for column in wanted or ():
        if column not in table:
            raise unknown_name("column of the item table", column, map(str, table.columns))
    if wanted is not None:
        return [str(column) for column in wanted]
    texts = [Columns.NAME, Columns.DESCRIPTION] if described else []
    first = [] if numbers else [column for column in (*texts, Columns.CATEGORY) if column in table]
    others = [column for column in dataset.attribute_columns if (numbers_of(table[column]) is not None) == numbers]
    return first + others


def _latent(texts: list[str], components: int) -> np.ndarray:
    """(n, at most `components`) float64: the texts' coordinates."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    try:
        weights = TfidfVectorizer(
            strip_accents="unicode", ngram_range=(1, 2), min_df=2, sublinear_tf=True
        ).fit_transform(texts)
    except ValueError:  # of scikit-learn, where no word is left
        raise InputError("no word of the item table is in the texts of two items: name other text_columns.") from None
    if min(weights.shape) <= components:  # then the decomposition is a whole one
        left, singular, right = np.linalg.svd(weights.toarray(), full_matrices=False)
        # A dimension may point either way: here its largest entry is positive.
        return np.asarray(left * singular * np.sign(right[np.arange(len(right)), np.abs(right).argmax(1)]))
    # Solved to the last digits, so that another machine finds the same dimensions.
    return np.asarray(TruncatedSVD(components, algorithm="arpack", random_state=0).fit_transform(weights))


def _sentence_encoder(name: str, device: str | torch.device) -> SentenceTransformer:
    require("sentences")
    from sentence_transformers import SentenceTransformer

    try:
        return SentenceTransformer(name, device=str(device), model_kwargs={"use_safetensors": True}).eval()
    # The hub's client and the loaders raise many kinds of exception.
    except Exception as error:
        raise InputError(
            f"the text encoder {name!r} cannot be loaded ({one_line(error)}): give 'tfidf', the name of a model of "
            "sentence-transformers where its hub can be reached, or the folder of one with safetensors."
        ) from None


def _cached(
    what: dict[str, str], cache: str | Path | None, make: Callable[[], np.ndarray], unkeyed: Iterable[str] = ()
) -> Features:
    """Features that are computed once, by the description that tells them from others."""
    key = fingerprint({name: value for name, value in what.items() if name not in unkeyed})

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            np.save(file, np.ascontiguousarray(make(), dtype=np.float32))

    path = cached(cache_folder(cache, "features") / f"text-{key}.npy", write, writer=replacing)
    try:
        values = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError):
        raise InputError(f"the features in {path} are damaged: delete the file and compute them again.") from None
    return _of_table("text", values, what, key)


def _of_table(name: str, values: np.ndarray, what: dict[str, str], digits: str) -> Features:
    return Features(values, what | {"random": "no"}, digits, {name: values.shape[1]}, frozenset({name}))
