"""Views of a dataset and of its features, before any model: distributions, categories, pictures, a map."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from imgrec_lib.data.dataset import Dataset, describe_item
from imgrec_lib.evaluation.neighbours import search_neighbours
from imgrec_lib.figures.curves import COLOURS, INK, MARKERS, literal
from imgrec_lib.figures.named import Figure
from imgrec_lib.gallery.gallery import Gallery
from imgrec_lib.gallery.rows import Cell, Row
from imgrec_lib.options import Count, CountOrNone

SECONDS_A_WEEK = 7 * 86400


def interaction_figure(dataset: Dataset) -> Figure:
    """Training interactions: item popularity by rank, history lengths, and purchases by week where times are known.

    Args:
        dataset: any dataset.

    Returns:
        A figure of two panels, or of three with timestamps.
    """
    train = dataset.train
    panels = 2 if train.times is None else 3
    figure = Figure(figsize=(4.2 * panels, 3.4), layout="constrained")
    axes = figure.subplots(1, panels)
    popularity = np.sort(train.popularity)[::-1]
    sold = popularity[popularity > 0]
    axes[0].loglog(np.arange(1, len(sold) + 1), sold, color=COLOURS[1], lw=1.8)
    axes[0].set(xlabel="Item's rank by popularity", ylabel="Training interactions", title="Popularity")
    lengths = np.bincount(train.history_lengths)
    axes[1].bar(np.arange(len(lengths)), lengths, width=1, color=COLOURS[1])
    axes[1].set(xlabel="Training interactions of a user", ylabel="Users", title="Histories", yscale="symlog")
    if train.times is not None:
        weeks = (train.times - train.times.min()) // SECONDS_A_WEEK
        counts = np.bincount(weeks)
        axes[2].bar(np.arange(len(counts)), counts, width=1, color=COLOURS[1])
        axes[2].set(xlabel="Weeks since the first interaction", ylabel="Training interactions", title="Time")
    for panel in axes:
        panel.spines[["top", "right"]].set_visible(False)
    return figure


def category_table(dataset: Dataset, most: Count = 20) -> pd.DataFrame:
    """Items, cold items and training interactions of each category, most items first.

    Args:
        dataset: any dataset; one without categories has the single row "(all)".
        most: categories shown; the others are summed in the row "(others)".
    """
    popularity = dataset.train.popularity
    category = dataset.items["category"].astype(str) if dataset.categories is not None else "(all)"
    frame = pd.DataFrame({"category": category, "items": 1, "cold items": popularity == 0, "interactions": popularity})
    table = frame.groupby("category").sum().astype(int).sort_values("items", ascending=False, kind="stable")
    if len(table) > most:
        table = pd.concat([table[:most], table[most:].sum().to_frame("(others)").T])
    table["interactions per item"] = (table["interactions"] / table["items"]).round(2)
    return table


def item_gallery(dataset: Dataset, per_category: Count = 6, categories: Count = 8, seed: CountOrNone = 0) -> Gallery:
    """Random items of the largest categories, one row each.

    Args:
        dataset: any dataset.
        per_category: pictures a row.
        categories: rows at most.
        seed: seeds the choice.
    """
    rng = np.random.default_rng(seed)
    codes, names = dataset.categories or (np.zeros(dataset.n_items, np.int64), ["all items"])
    sizes = np.bincount(codes, minlength=len(names))
    rows = []
    for code in np.argsort(-sizes, kind="stable")[:categories]:
        members = np.flatnonzero(codes == code)
        chosen = rng.choice(members, size=min(per_category, len(members)), replace=False)
        cells = tuple(Cell(int(item), describe_item(dataset, int(item))[:1]) for item in chosen)
        rows.append(Row(f"{names[code]} ({sizes[code]:,} items)", cells))
    return Gallery("A few items of each category", tuple(rows), dataset.images)


def category_agreement(
    dataset: Dataset, vectors: Tensor | np.ndarray, k: Count = 10, queries: Count = 1000, seed: CountOrNone = 0
) -> pd.DataFrame:
    """How often an item's nearest neighbours share its category and its attributes, against chance.

    Args:
        dataset: an item table with categories or attributes.
        vectors: (n_items, d) any item vectors.
        k: neighbours of each query.
        queries: random items asked at most.
        seed: seeds their choice.

    Returns:
        One row for the category and for each attribute with at most 200 values: `neighbours` and `chance` (the share
        of all pairs of different items that agree), and `lift`, their ratio.
    """
    rng = np.random.default_rng(seed)
    asked = rng.choice(dataset.n_items, size=min(queries, dataset.n_items), replace=False)
    found = search_neighbours(vectors, asked, k).items
    rows = {}
    for column in [c for c in ("category", *dataset.attribute_columns) if c in dataset.items]:
        codes, values = pd.factorize(dataset.items[column].astype(str))
        if not 2 <= len(values) <= 200:
            continue
        counts = np.bincount(codes)
        chance = (counts * (counts - 1)).sum() / (dataset.n_items * (dataset.n_items - 1))
        rows[column] = {"neighbours": (codes[found] == codes[asked][:, None]).mean(), "chance": chance}
    table = pd.DataFrame(rows, index=["neighbours", "chance"]).T
    table["lift"] = table["neighbours"] / table["chance"]
    return table.round(2)


def feature_map(dataset: Dataset, vectors: Tensor | np.ndarray, most: Count = 5000, seed: CountOrNone = 0) -> Figure:
    """Items on the first two principal components of their vectors, the largest categories told apart.

    Args:
        dataset: gives the categories.
        vectors: (n_items, d) any item vectors.
        most: items drawn at most, a random choice.
        seed: seeds the choice and the randomised decomposition.
    """
    rng = np.random.default_rng(seed)
    shown = np.sort(rng.choice(dataset.n_items, size=min(most, dataset.n_items), replace=False))
    if isinstance(vectors, Tensor):
        vectors = vectors.detach().cpu().numpy()
    values = torch.from_numpy(np.asarray(vectors[shown], dtype=np.float32))
    values = values - values.mean(0)
    _, spread, directions = torch.linalg.svd(values, full_matrices=False)
    x, y = (values @ directions[:2].T).T.numpy()
    share = (spread[:2].square() / spread.square().sum()).tolist()
    codes, names = dataset.categories or (np.zeros(dataset.n_items, np.int64), ["all items"])
    codes = codes[shown]
    figure = Figure(figsize=(8.5, 5), layout="constrained")
    axes = figure.subplots()
    largest = np.argsort(-np.bincount(codes, minlength=len(names)), kind="stable")[: len(COLOURS) - 1]
    rest = ~np.isin(codes, largest)
    if rest.any():
        axes.scatter(x[rest], y[rest], s=6, color="#9aa0a6", alpha=0.4, lw=0, label="other")
    for number, code in enumerate(largest):
        colour, marker = COLOURS[1 + number], MARKERS[number]
        axes.scatter(
            x[codes == code],
            y[codes == code],
            s=14,
            color=colour,
            marker=marker,
            alpha=0.6,
            lw=0,
            label=literal(names[code]),
        )
    axes.set_xlabel(f"First principal component ({share[0]:.0%} of the variance)", color=INK)
    axes.set_ylabel(f"Second principal component ({share[1]:.0%})", color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    return figure
