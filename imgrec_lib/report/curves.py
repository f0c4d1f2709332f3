"""The figures of a report. Each function returns a Figure of its own; pyplot's global state is not touched.

Colours keep a contrast of 3:1 on white and on near-black and stay apart in the common colour-vision deficiencies;
marker and line style tell the models apart without any colour.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

from imgrec_lib.report.tables import (
    ORACLE,
    auc_table,
    cost_table,
    history_table,
    measured,
    popularity_table,
    protocol_table,
    trials,
)
from imgrec_lib.runs import Run

INK = "#1b1f24"
"""Colour of text, axes and the first line; a page may replace it by the reader's text colour."""

# After Okabe and Ito's palette, with orange and sky blue darkened until they show on white.
COLOURS = (INK, "#0072b2", "#d55e00", "#009e73", "#c0609a", "#a0741a", "#3d8fc4")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p", "<", "*", ">")
LINES = ("-", "--", "-.", (0, (1, 1.2)), (0, (5, 1, 1, 1, 1, 1)))


def learning_curves(runs: Sequence[Run]) -> Figure:
    """Validation AUC by epoch: the mean over the trials that still train, with a band of one standard deviation.

    Phases of training follow each other; a dot marks the best epoch of each trial. A model without training is a
    horizontal line.

    Args:
        runs: runs of one dataset.

    Raises:
        InputError: see `tables.trials`.
    """
    figure, axes = _figure()
    for number, row in enumerate(trials(runs)):
        curves = [validation_curve(run) for run in row.runs]
        style = _style(number)
        if all(len(curve) < 2 for curve in curves):
            level = float(np.mean([run.record["validation"]["auc"] for run in row.runs]))
            axes.axhline(level, label=f"{row.label}, untrained", **_style(number) | {"marker": "", "lw": 1.1})
            continue
        table = pd.concat(curves, axis=1)
        mean, deviation = table.mean(axis=1), table.std(axis=1)
        axes.plot(mean.index, mean, label=row.label, markevery=max(1, len(mean) // 8), **style)
        axes.fill_between(mean.index, mean - deviation, mean + deviation, color=style["color"], alpha=0.18, lw=0)
        for curve in curves:
            best = int(np.argmax(curve.to_numpy()))
            axes.plot(curve.index[best], curve.iloc[best], ".", color=style["color"], ms=5)
    _finish(axes, "Epoch", "Validation AUC (exact, mid-rank)")
    return figure


def validation_curve(run: Run) -> pd.Series:
    """Validation AUC of one run, indexed by the epoch counted through all phases; 0 is before training."""
    curve = run.curve
    if not len(curve):
        return pd.Series(dtype=float)
    lengths = curve.groupby("phase")["epoch"].max()
    before = lengths.cumsum().shift(fill_value=0)
    # A later phase's epoch 0 is the best state so far, validated again.
    kept = curve[((curve["epoch"] > 0) | (curve["phase"] == curve["phase"].min())) & curve["validation_auc"].notna()]
    epochs = kept["epoch"] + kept["phase"].map(before)
    return pd.Series(kept["validation_auc"].to_numpy(), index=epochs.to_numpy(), name=run.name)


def auc_by_popularity(runs: Sequence[Run]) -> Figure:
    """Exact AUC by the training interactions of the held-out item; bars of one standard deviation over trials."""
    return _bands(popularity_table(runs), "Training interactions of the held-out item")


def auc_by_history(runs: Sequence[Run]) -> Figure:
    """Exact AUC by the training interactions of the user; bars of one standard deviation over trials."""
    return _bands(history_table(runs), "Training interactions of the user")


def sampled_vs_exact(runs: Sequence[Run]) -> Figure:
    """AUC of each model under each protocol: a filled marker where ties count one half, an open one where they lose."""
    table = protocol_table(runs)
    table = table[table.index != ORACLE]
    protocols = [name for name in measured(table) if not name.endswith(", strict")]
    figure, axes = _figure(height=1.6 + 0.42 * len(table))
    places = np.arange(len(table))[::-1]
    for number, protocol in enumerate(protocols):
        colour, marker = COLOURS[number], MARKERS[number]
        height = places + 0.12 * ((len(protocols) - 1) / 2 - number)
        halves, strict = table[protocol, "mean"], table[f"{protocol}, strict", "mean"]
        axes.hlines(height, strict, halves, color=colour, lw=1)
        axes.plot(halves, height, marker, color=colour, ms=6, label=f"{protocol}, a tie is half")
        axes.plot(strict, height, marker, color=colour, ms=6, mfc="none", label=f"{protocol}, a tie is lost")
    axes.set_yticks(places, [literal(label) for label in table.index])
    _finish(axes, "AUC", "", grid="x")
    return figure


def cost_vs_quality(runs: Sequence[Run]) -> Figure:
    """Exact AUC over the seconds of training, validation included (logarithmic)."""
    quality, cost = auc_table(runs), cost_table(runs)
    figure, axes = _figure()
    for number, label in enumerate(cost.index):
        style = _style(number) | {"linestyle": "", "ms": 8}
        axes.errorbar(
            cost.loc[label, ("seconds with validation", "")],
            quality.loc[label, ("AUC", "mean")],
            np.nan_to_num(quality.loc[label, ("AUC", "sd")]),
            label=label,
            **style,
        )
    axes.set_xscale("log")
    _finish(axes, "Seconds of training with validation", "AUC (exact, mid-rank)")
    return figure


def literal(text: object) -> str:
    """A name for a figure: Matplotlib would read what stands between two dollar signs as a formula, and may fail."""
    return str(text).replace("$", r"\$")


def _bands(table: pd.DataFrame, label: str) -> Figure:
    figure, axes = _figure()
    bands = measured(table)
    places = np.arange(len(bands))
    for number, name in enumerate(table.index):
        shift = 0.3 * ((number + 0.5) / len(table) - 0.5)
        means = [table.loc[name, (band, "mean")] for band in bands]
        deviations = np.nan_to_num([table.loc[name, (band, "sd")] for band in bands])
        axes.errorbar(places + shift, means, deviations, label=name, elinewidth=1, **_style(number))
    axes.set_xticks(places, [band.replace(" (", "\n(") for band in bands])
    _finish(axes, label, "AUC (exact, mid-rank)")
    return figure


def _style(number: int) -> dict[str, Any]:
    """Colour, marker and line of the n-th row; the cycles have lengths without common divisor."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": LINES[number % len(LINES)],
        "lw": 1.6,
        "ms": 5,
    }


def _figure(width: float = 9.0, height: float = 4.2) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _finish(axes: Axes, x: str, y: str, grid: str = "both") -> None:
    """Labels, grid and legend, all in `INK`."""
    axes.set_xlabel(x, color=INK)
    axes.set_ylabel(y, color=INK)
    axes.tick_params(which="both", colors=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    show: Callable[..., None] = axes.grid
    show(axis=grid, color=INK, alpha=0.15, lw=0.7)
    axes.set_axisbelow(True)
    handles, labels = axes.get_legend_handles_labels()
    # An error bar's handle would repeat the bar; the line alone is the model's sign.
    lines = [handle[0] if isinstance(handle, ErrorbarContainer) else handle for handle in handles]
    labels = [literal(label) for label in labels]
    axes.legend(lines, labels, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, labelcolor=INK, fontsize=9)
