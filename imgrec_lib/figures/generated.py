"""Generated garments: sample sheets, a generator's progress, designs for a user and the real items nearest to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from annotated_types import MinLen
from matplotlib.axes import Axes

from imgrec_lib.data.dataset import Dataset, describe_item, latest_items
from imgrec_lib.data.images import ImageStore
from imgrec_lib.errors import InputError
from imgrec_lib.evaluation.neighbours import search_neighbours
from imgrec_lib.figures.curves import COLOURS, INK, LINES
from imgrec_lib.figures.named import Figure
from imgrec_lib.gallery.gallery import Gallery
from imgrec_lib.gallery.rows import Cell, Row
from imgrec_lib.generation import Design, Pictures
from imgrec_lib.options import Count

Designs = Annotated[Sequence[Design], MinLen(1)]


def picture_grid(pictures: np.ndarray, rows: Sequence[str], columns: Sequence[str] = (), title: str = "") -> Figure:
    """Pictures in labelled rows.

    Args:
        pictures: (R, C, size, size, 3) uint8.
        rows: R labels.
        columns: C labels, or none.
        title: of the figure.
    """
    n_rows, n_columns = pictures.shape[:2]
    if len(rows) != n_rows or len(columns) not in (0, n_columns):
        raise InputError(
            f"rows and columns must have {n_rows} and {n_columns} labels, not {len(rows)} and {len(columns)}."
        )
    figure = Figure(figsize=(1.6 + 0.95 * n_columns, 0.95 * n_rows + 0.3 * bool(columns) + 0.4 * bool(title)))
    axes = figure.subplots(n_rows, n_columns, squeeze=False, gridspec_kw={"wspace": 0.04, "hspace": 0.04})
    for row in range(n_rows):
        for column in range(n_columns):
            _show(axes[row, column], pictures[row, column])
        axes[row, 0].set_ylabel(rows[row], rotation=0, ha="right", va="center", labelpad=8, color=INK, fontsize=9)
    for column, label in enumerate(columns):
        axes[0, column].set_title(label, color=INK, fontsize=9)
    if title:
        figure.suptitle(title, color=INK, fontsize=11)
    return figure


def progress_grid(progress: np.ndarray, classes: Sequence[str], moments: Count = 6) -> Figure:
    """The first code of each class after some epochs, from before training to the last one.

    Args:
        progress: (epochs + 1, classes, codes, size, size, 3) uint8, see `GANTraining.progress`.
        classes: names of the classes.
        moments: columns at most, evenly spread.
    """
    epochs = np.unique(np.linspace(0, len(progress) - 1, moments).round().astype(int))
    labels = ["untrained" if epoch == 0 else f"epoch {epoch}" for epoch in epochs]
    return picture_grid(progress[epochs, :, 0].swapaxes(0, 1), classes, labels)


def design_gallery(dataset: Dataset, pictures: Pictures, designs: Designs, k: Count = 8) -> Gallery:
    """What users bought of a class, beside the garment designed for each.

    Args:
        dataset: gives histories, names and pictures.
        pictures: gives the names of the classes.
        designs: one row each; the start with the highest objective is shown as it began and as it ended.
        k: bought items shown at most, those of the class first and the latest first.
    """
    codes, names = dataset.categories or (np.zeros(dataset.n_items, np.int64), ["all items"])
    histories, shown = [], []
    for one in designs:
        bought = latest_items(dataset, one.user)
        of_class = codes[bought] == names.index(pictures.names[one.label])
        histories.append((len(bought), int(of_class.sum())))
        shown.append(np.concatenate([bought[of_class], bought[~of_class]])[:k].tolist())
    bests = [_best(one) for one in designs]
    made = np.concatenate([one.pictures[[0, -1], best] for one, best in zip(designs, bests, strict=True)])
    store, place, first = _store(dataset, [item for row in shown for item in row], made)
    rows = []
    for number, (one, best, items) in enumerate(zip(designs, bests, shown, strict=True)):
        label, start = pictures.names[one.label], first + 2 * number
        cells = (
            *(Cell(place[item], describe_item(dataset, item)) for item in items),
            Cell(start, ("generated at random", label), float(one.preference[0, best]), "start"),
            Cell(start + 1, ("designed for this user", label), float(one.preference[-1, best]), "designed"),
        )
        total, of_class = histories[number]
        rows.append(Row(f"User {dataset.user_ids[one.user]} bought {total} items, {of_class} of them {label}", cells))
    return Gallery("Designed for a user", tuple(rows), store)


def nearest_items_gallery(
    dataset: Dataset, designs: Designs, designed: np.ndarray, items: np.ndarray, k: Count = 8
) -> Gallery:
    """Designs with the real items nearest to them in a space of features: is it new, or a copy?

    Args:
        dataset: gives names and pictures.
        designs: one row each; the start with the highest objective, as it ended.
        designed: (designs, d) features of these pictures (`best_pictures`).
        items: (n_items, d) features of the items, in the same space.
        k: items a row.
    """
    n_items = dataset.n_items
    vectors = np.concatenate([items, designed]).astype(np.float32)
    found = search_neighbours(vectors, np.arange(n_items, len(vectors)), k + len(designs))
    shown = [
        [(item, value) for item, value in zip(near, values, strict=True) if item < n_items][:k]
        for near, values in zip(found.items.tolist(), found.similarity.tolist(), strict=True)
    ]
    store, place, first = _store(dataset, [item for row in shown for item, _ in row], best_pictures(designs))
    rows = []
    for number, (one, real) in enumerate(zip(designs, shown, strict=True)):
        cells = [Cell(place[item], describe_item(dataset, item), value) for item, value in real]
        query = Cell(first + number, ("designed",), mark="designed")
        rows.append(Row(f"For user {dataset.user_ids[one.user]}", (query, *cells)))
    return Gallery("Nearest real items, by visual feature", tuple(rows), store)


def best_pictures(designs: Designs) -> np.ndarray:
    """Of each design the picture that ended with the highest objective: (designs, size, size, 3) uint8."""
    return np.stack([one.pictures[-1, _best(one)] for one in designs])


def preference_figure(dataset: Dataset, designs: Designs, real: Sequence[np.ndarray]) -> Figure:
    """The preference along the steps, for each design a panel, against the user's scores of the real items.

    Args:
        dataset: gives the users' names.
        designs: a panel each.
        real: for each design the user's scores of the real items of its class.
    """
    if len(real) != len(designs):
        raise InputError(f"real must have the scores of {len(designs)} designs, not of {len(real)}.")
    figure = Figure(figsize=(1.2 + 2.7 * len(designs), 3.1), layout="constrained")
    panels = figure.subplots(1, len(designs), squeeze=False)[0]
    for axes, one, scores in zip(panels, designs, real, strict=True):
        steps = np.arange(len(one.preference))
        for line in one.preference.T:
            axes.plot(steps, line, color=COLOURS[1], lw=0.9, alpha=0.45)
        axes.plot(steps, one.preference.mean(1), color=COLOURS[1], lw=2.2, label="designs, mean")
        for number, (share, name) in enumerate(
            ((1.0, "best real item"), (0.9, "top tenth"), (0.5, "median real item"))
        ):
            axes.axhline(
                np.quantile(scores, share),
                color=COLOURS[2],
                lw=1.2,
                ls=LINES[number],
                label=name,
            )
        axes.set_title(f"User {dataset.user_ids[one.user]}", fontsize=9, color=INK)
        axes.set_xlabel("Step", color=INK)
        axes.tick_params(colors=INK, labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("Preference (the model's score)", color=INK)
    panels[-1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, fontsize=8, labelcolor=INK)
    return figure


def steps_grid(dataset: Dataset, designs: Designs, moments: Count = 6) -> Figure:
    """The best start of each design along the steps, with its preference above."""
    steps = np.unique(np.linspace(0, len(designs[0].pictures) - 1, moments).round().astype(int))
    pictures = np.stack([one.pictures[steps, _best(one)] for one in designs])
    names = [f"user {dataset.user_ids[one.user]}" for one in designs]
    return picture_grid(pictures, names, [f"step {step}" for step in steps])


def _show(axes: Axes, picture: np.ndarray) -> None:
    axes.imshow(picture)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color("#c8ccd1")


def _best(one: Design) -> int:
    """The start that ended with the highest objective."""
    return int(one.objective[-1].argmax())


def _store(dataset: Dataset, items: Sequence[int], made: np.ndarray) -> tuple[ImageStore, dict[int, int], int]:
    """A store of some items' pictures with made ones behind; the row of each item, and that of the first made one."""
    assert dataset.images is not None
    different = sorted(set(items))
    size = min(96, dataset.images.size)
    drawn = ImageStore.from_array(made)
    pixels = [np.asarray(dataset.images.thumbnail(item, size)) for item in different]
    pixels += [np.asarray(drawn.thumbnail(number, size)) for number in range(len(made))]
    present = np.concatenate([dataset.images.present[different], np.ones(len(made), dtype=bool)])
    store = ImageStore.from_array(np.stack(pixels), present)
    return store, {item: row for row, item in enumerate(different)}, len(different)
