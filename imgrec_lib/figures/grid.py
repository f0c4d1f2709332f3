"""What a grid search saw, drawn: validation AUC over the settings that were varied."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from imgrec_lib.figures.curves import ACCENT, INK, MARKERS, Chart, finish, literal, single_panel
from imgrec_lib.results.tables import VALIDATION

MOST = 12
"""Values of a setting that have room side by side."""


def validation_surface(table: pd.DataFrame) -> Chart | None:
    """The validation AUC of a grid: a line over one varied setting, a map over two; None over more, or over none, and
    where a search has drawn so many values that each stands almost alone.

    Args:
        table: see `search_table`.
    """
    names = [str(column[0]) for column in table.columns if column[1] == "" and column[0] != "trials"]
    numbers = [len(_ordered(table, name)) for name in names]
    if len(names) == 1 and numbers[0] <= MOST:
        return _line(table, names[0])
    if len(names) == 2 and max(numbers) <= MOST and 2 * len(table) > numbers[0] * numbers[1]:
        return _map(table, names[0], names[1])
    return None


def _line(table: pd.DataFrame, name: str) -> Chart:
    values = _ordered(table, name)
    by_value = table.set_index(table[name, ""].map(_text))[VALIDATION].loc[[_text(value) for value in values]]
    figure, axes = single_panel()
    places = np.arange(len(values))
    axes.errorbar(
        places, by_value["mean"], np.nan_to_num(by_value["sd"].to_numpy(float)), color=ACCENT, marker=MARKERS[0], lw=1.6
    )
    for place, mean in zip(places, by_value["mean"], strict=True):
        axes.annotate(
            f"{mean:.4f}", (place, mean), (0, 9), textcoords="offset points", ha="center", color=INK, fontsize=8
        )
    axes.set_xticks(places, [literal(_text(value)) for value in values])
    axes.margins(y=0.2)
    finish(axes, name.capitalize(), "Validation AUC (exact, mid-rank)")
    figure.alt = f"Validation AUC by {name}: " + "; ".join(
        f"{value} {mean:.4f}" for value, mean in by_value["mean"].items()
    ) + "."  # fmt: skip
    return figure


def _map(table: pd.DataFrame, across: str, down: str) -> Chart:
    columns, rows = _ordered(table, across), _ordered(table, down)
    figure, axes = single_panel(height=1.6 + 0.5 * len(rows))
    low, high = float(table[VALIDATION, "mean"].min()), float(table[VALIDATION, "mean"].max())
    words = []
    for x, y, mean in zip(table[across, ""], table[down, ""], table[VALIDATION, "mean"], strict=True):
        column, row = columns.index(x), rows.index(y)
        shade = 0.05 + 0.45 * (mean - low) / (high - low) if high > low else 0.05
        axes.fill_between([column - 0.48, column + 0.48], row - 0.46, row + 0.46, color=ACCENT, alpha=shade, lw=0)
        best = mean == high
        text = f"{mean:.4f}{' best' if best else ''}"
        axes.text(
            column, row, text, ha="center", va="center", color=INK, fontsize=9, weight="bold" if best else "normal"
        )
        words.append(f"{_text(x)} and {_text(y)} {mean:.4f}")
    axes.set_xticks(range(len(columns)), [literal(_text(value)) for value in columns])
    axes.set_yticks(range(len(rows)), [literal(_text(value)) for value in rows])
    axes.set(xlim=(-0.6, len(columns) - 0.4), ylim=(len(rows) - 0.4, -0.6))
    finish(axes, across.capitalize(), down.capitalize(), grid="")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    figure.alt = f"Validation AUC by {across} and {down}, best first: {'; '.join(words)}."
    return figure


def _ordered(table: pd.DataFrame, name: str) -> list[Any]:
    """The values of a setting: numbers by size, anything else as text."""
    values = list({_text(value): value for value in table[name, ""]}.values())
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return sorted(values, key=float)
    return sorted(values, key=_text)


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
