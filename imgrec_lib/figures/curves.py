"""The figures of a report. Each function returns a `Chart` of its own; pyplot's global state is not touched.

Where lines of many models would cover each other, each has a panel with the others in grey behind; nothing has to be
told apart by colour. The colours that are used keep a contrast of 3:1 on white and on near-black and stay apart in the
common colour-vision deficiencies; markers differ as well.
"""

from __future__ import annotations

import base64
import io
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from imgrec_lib.figures.named import Figure
from imgrec_lib.results.comparison import Comparison
from imgrec_lib.results.results import Results
from imgrec_lib.results.standings import Standings
from imgrec_lib.results.tables import auc_table, cost_table, history_table, measured, popularity_table, protocol_table
from imgrec_lib.results.trials import ORACLE, metric_heading
from imgrec_lib.runs import Run

INK = "#1b1f24"
"""Colour of text, axes and the first line; a page may replace it by the reader's text colour."""

# After Okabe and Ito's palette, with orange and sky blue darkened until they show on white.
COLOURS = (INK, "#0072b2", "#d55e00", "#009e73", "#c0609a", "#a0741a", "#3d8fc4")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p", "<", "*", ">")
LINES = ("-", "--", "-.", (0, (1, 1.2)), (0, (5, 1, 1, 1, 1, 1)))
ACCENT, BEHIND = COLOURS[1], "#8b929a"
LINE = 34
"""Letters of a row's name on one line, at most."""


class Chart(Figure):
    """A figure with an alternative text, which goes with the picture into a notebook and onto a page.

    Attributes:
        alt: what the figure shows, in words and numbers.
    """

    alt: str = ""

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        """A PNG of twice the size at which it is shown, with the alternative text in its metadata."""
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=2 * self.dpi, facecolor="white")
        width, height = (round(side * self.dpi) for side in self.get_size_inches())
        picture = base64.b64encode(buffer.getvalue()).decode()
        about = {"alt": self.alt, "width": width, "height": height}
        return {"image/png": picture, "text/plain": self.alt}, {"image/png": about}


def standings_chart(standings: Standings, *, narrow: bool = False) -> Chart:
    """The rows from the best to the last by the metric that the runs were chosen by, with the 95 % interval.

    A row that has a control stands with it on one line, and the line between them is what its pictures add.

    Args:
        standings: the rows.
        narrow: for a telephone: less wide, with the names above their lines.
    """
    heading = metric_heading(standings.metric)
    own = {label: control for control, label in standings.controlled.items()}
    shown = [str(label) for label in standings.table.index if label not in standings.controlled]
    seeing = {row.label: row.sees_pictures for row in standings.results.rows}
    row, width = (0.4, 3.7) if narrow else (0.27, 9.0)
    figure, axes = single_panel(width, 1.0 + (row + _further_lines(shown)) * len(shown))
    size, beside = 7.5 if narrow else 8.5, axes.get_yaxis_transform()
    for place, label in enumerate(shown):
        mean, low, high = standings.of(label)
        sees = seeing[label]
        colour, marker = (ACCENT, "o") if sees else (BEHIND, "s")
        known = "with pictures" if sees else "without pictures"
        axes.hlines(place, low, high, color=colour, lw=1.6)
        axes.plot(mean, place, marker, color=colour, ms=6, ls="", label=known)
        words = f"{mean:.4f}"
        if label in own:
            control = standings.of(own[label]).mean
            axes.plot([control, mean], [place, place], color=COLOURS[2], lw=1.2, ls=":")
            told = f"its {standings.shuffled} shuffled"
            axes.plot(control, place, "D", color=COLOURS[2], mfc="none", ms=6, ls="", label=told)
            words += f" (shuffled {control:.4f})"
        if narrow:
            words = f"{_row_name(label)}  {words}"
            axes.text(0.01, place - 0.25, words, transform=beside, va="bottom", color=INK, fontsize=size)
        else:
            axes.text(1.01, place, words, transform=beside, va="center", color=INK, fontsize=size)
    axes.set_yticks([] if narrow else range(len(shown)), [] if narrow else [_row_name(label) for label in shown])
    axes.set_ylim(len(shown) - 0.4, -0.8)
    oracle = [metrics["exact"].get(standings.metric) for metrics in standings.results.oracle]
    ceiling = [value for value in oracle if value is not None]
    if ceiling:
        axes.axvline(float(np.mean(ceiling)), color=INK, lw=1, ls="--", label=f"oracle {np.mean(ceiling):.4f}")
    finish(axes, f"{heading} (exact), 95 % interval of the mean over users", "", grid="x")
    axes.tick_params(axis="y", length=0, labelsize=size)
    axes.xaxis.label.set_fontsize(size)
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles.keys(), loc="outside upper left", ncols=2 if narrow else 4, frameon=False,
                  labelcolor=INK, fontsize=size)  # fmt: skip
    gains = [
        f"{name} {standings.of(own[name]).mean:.4f} with its {standings.shuffled} shuffled"
        for name in shown
        if name in own
    ]
    figure.alt = f"{heading}, the best first: " + "; ".join(
        f"{label} {standings.of(label).mean:.4f} ({'with' if seeing[label] else 'without'} pictures)" for label in shown
    ) + "".join(f"; {gain}" for gain in gains) + "."  # fmt: skip
    return figure


def learning_curves(results: Results) -> Chart:
    """What training was chosen by, by epoch, a panel for each trained model: the mean over the trials that still train,
    with a band of one standard deviation. Where that is not the validation AUC, the AUC is a grey line with an axis of
    its own on the right.

    Phases of training follow each other; a dot marks the epoch whose weights each trial kept. Each panel has its own
    epochs, whose cost differs between models. Lines across all panels: the best of all models, and the best without
    training.
    """
    metric = results.chosen_by
    name = f"validation {metric_heading(metric)}"
    best = {row.label: row.validation(metric) for row in results.rows}
    curves = {row.label: [validation_curve(run, metric) for run in row.runs] for row in results.rows}
    trained = [row for row in results.rows if any(len(curve) > 1 for curve in curves[row.label])]
    lines = {"best of all": (max(best, key=best.__getitem__), ":")}
    untrained = [row.label for row in results.rows if row not in trained]
    if untrained:
        lines["best without training"] = (max(untrained, key=best.__getitem__), "--")
    figure, panels = _panels([row.label for row in trained], share_x=False)
    words, beside = [], []
    for axes, row in zip(panels, trained, strict=True):
        for words_of_line, (whose, style) in lines.items():
            label = f"{words_of_line}: {_row_name(whose)} {best[whose]:.4f}"
            axes.axhline(best[whose], color=INK, lw=0.9, ls=style, label=label)
        table = pd.concat(curves[row.label], axis=1)
        mean, deviation = table.mean(axis=1), table.std(axis=1)
        axes.plot(mean.index, mean, color=ACCENT, lw=1.6, label="_mean")
        axes.fill_between(mean.index, mean - deviation, mean + deviation, color=ACCENT, alpha=0.25, lw=0)
        epochs = [kept_epoch(run) for run in row.runs]
        kept = [(at, curve[at]) for at, curve in zip(epochs, curves[row.label], strict=True) if at in curve]
        axes.plot([at for at, _ in kept], [value for _, value in kept], "o", color=COLOURS[2], ms=4, label="_kept")
        where = f" at epoch {_spread(sorted(at for at, _ in kept))} of {int(mean.index[-1])}" if kept else ""
        words.append(f"{row.label} {best[row.label]:.4f}{where}")
        if metric != "auc":
            auc = pd.concat([validation_curve(run) for run in row.runs], axis=1).mean(axis=1)
            beside.append(axes.twinx())
            beside[-1].plot(auc.index, auc, color=BEHIND, lw=1.2, ls="-.")
            beside[-1].tick_params(colors=BEHIND, labelsize=7)
            beside[-1].spines[["top", "left", "bottom"]].set_visible(False)
            words[-1] += f", AUC {auc.iloc[-1]:.4f} at the end"
    _label_panels(figure, panels, "Epoch", f"{name[0].upper()}{name[1:]} (exact)" + (", AUC in grey" if beside else ""))
    if panels:
        # The climb from chance would leave no room for what tells the models apart.
        finite = [best[row.label] for row in trained if np.isfinite(best[row.label])]
        if finite and metric == "auc":
            panels[0].set_ylim(bottom=max(panels[0].get_ylim()[0], min(finite) - 0.06))
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(
            handles[: len(lines)], labels[: len(lines)], loc="outside upper left", frameon=False, labelcolor=INK,
            fontsize=8, ncols=2,
        )  # fmt: skip
    figure.alt = (
        f"Learning curves of {len(trained)} trained models, a panel each. Best {name}, mean over trials: "
        f"{'; '.join(words) or 'none'}."
        + "".join(f" {line.capitalize()}: {whose}, {best[whose]:.4f}." for line, (whose, _) in lines.items())
    )
    return figure


def validation_curve(run: Run, metric: str = "auc") -> pd.Series:
    """A validation metric of one run, indexed by the epoch counted through all phases; 0 is before training."""
    curve, column = run.curve, f"validation_{metric}"
    if not len(curve) or column not in curve:
        return pd.Series(dtype=float)
    # A later phase's epoch 0 is the best state so far, validated again.
    kept = curve[((curve["epoch"] > 0) | (curve["phase"] == curve["phase"].min())) & curve[column].notna()]
    epochs = kept["epoch"] + kept["phase"].map(_epochs_before(curve))
    return pd.Series(kept[column].to_numpy(), index=epochs.to_numpy(), name=run.name)


def kept_epoch(run: Run) -> int:
    """The epoch whose weights a run kept, counted through all phases; -1 where its curve does not know the phase."""
    before, kept = _epochs_before(run.curve), run.record.validation
    return int(before[kept.phase]) + kept.epoch if kept.phase in before else -1


def _epochs_before(curve: pd.DataFrame) -> pd.Series:
    """How many epochs came before each phase."""
    return curve.groupby("phase")["epoch"].max().cumsum().shift(fill_value=0)


def auc_by_popularity(results: Results) -> Chart:
    """Exact AUC by the training interactions of the held-out item; bars of one standard deviation over trials."""
    return _bands(popularity_table(results), "Training interactions of the held-out item")


def auc_by_history(results: Results) -> Chart:
    """Exact AUC by the training interactions of the user; bars of one standard deviation over trials."""
    return _bands(history_table(results), "Training interactions of the user")


def sampled_vs_exact(results: Results) -> Chart:
    """AUC of each model under each protocol: a filled marker where ties count one half, an open one where they lose."""
    table = protocol_table(results)
    table = table[table.index != ORACLE]
    protocols = [name for name in measured(table) if not name.endswith(", strict")]
    figure, axes = single_panel(height=1.6 + (0.42 + _further_lines(table.index)) * len(table))
    places = np.arange(len(table))[::-1]
    for number, protocol in enumerate(protocols):
        colour, marker = COLOURS[number], MARKERS[number]
        height = places + 0.12 * ((len(protocols) - 1) / 2 - number)
        halves, strict = table[protocol, "mean"], table[f"{protocol}, strict", "mean"]
        axes.hlines(height, strict, halves, color=colour, lw=1)
        axes.plot(halves, height, marker, color=colour, ms=6, label=f"{protocol}, a tie is half")
        axes.plot(strict, height, marker, color=colour, ms=6, mfc="none", label=f"{protocol}, a tie is lost")
    axes.set_yticks(places, [_row_name(label) for label in table.index])
    finish(axes, "AUC", "", grid="x")
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles, labels, loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=4, columnspacing=1.2,
                frameon=False, labelcolor=INK, fontsize=8)  # fmt: skip
    exact = table["exact", "mean"]
    apart = pd.concat([(table[name, "mean"] - exact).abs() for name in protocols], axis=1).max(axis=1)
    lost = exact - table["exact, strict", "mean"]
    figure.alt = f"Exact AUC: {_in_words(exact.dropna()) or 'unknown'}."
    if lost.notna().any():
        figure.alt += (
            f" A sampled protocol is farthest from it for {apart.idxmax()}, by {apart.max():.4f}. Counting ties as "
            f"lost costs {lost.idxmax()} the most, {lost.max():.4f}."
        )
    return figure


def cost_vs_quality(results: Results) -> Chart:
    """Exact AUC over the seconds of training, validation included (logarithmic), each point with its model's name."""
    quality, cost = auc_table(results), cost_table(results)
    figure, axes = single_panel(height=5.2)
    seconds = cost["seconds with validation", ""]
    points = []
    for number, label in enumerate(cost.index):
        x, y = float(seconds[label]), float(quality.loc[label, ("AUC", "mean")])
        deviation = np.nan_to_num(quality.loc[label, ("AUC", "sd")])
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        axes.errorbar(x, y, deviation, color=colour, marker=marker, linestyle="", ms=7, lw=1.4)
        points.append((x, y, str(label)))
    axes.set_xscale("log")
    axes.margins(x=0.12, y=0.08)
    finish(axes, "Seconds of training with validation", "AUC (exact, mid-rank)")
    _name_points(figure, axes, points)
    figure.alt = "AUC and seconds of training with validation: " + "; ".join(
        f"{label} {y:.4f} in {x:,.3g} s" for x, y, label in points
    ) + "."  # fmt: skip
    return figure


def difference_matrix(comparison: Comparison) -> Chart:
    """How far each model is ahead of each one below it, in thousandths of AUC.

    Models are ordered by AUC. A filled cell is a difference that holds; one that does not, or that is with a row whose
    settings were not searched on this data, stands in brackets.

    Args:
        comparison: see `Results.comparison`.
    """
    d = comparison.differences
    order = np.argsort(-d.mean.mean(1), kind="stable")
    labels = [d.labels[place] for place in order]
    mean, holds = d.mean[np.ix_(order, order)] * 1000, comparison.holds[np.ix_(order, order)]
    size = len(labels) - 1
    # Where cells are narrow, decimals and slanting names would cover each other.
    digits, letters, angle, name = (1, 8, 35, _row_name) if size < 14 else (0, 6.5, 90, literal)
    figure, axes = single_panel(height=1.6 + (0.33 + _further_lines(labels)) * size)
    largest = max(float(mean.max()), 1e-12)
    for row in range(size):
        for column in range(row, size):
            value, held = mean[row, column + 1], bool(holds[row, column + 1])
            if held:
                shade = 0.12 + 0.4 * float(value) / largest
                axes.fill_between(
                    [column - 0.47, column + 0.47], row - 0.45, row + 0.45, color=ACCENT, alpha=shade, lw=0
                )
            text = f"{value:.{digits}f}" if held else f"({value:.{digits}f})"
            axes.text(column, row, text, ha="center", va="center", color=INK, fontsize=letters)
    axes.set(xlim=(-0.6, size - 0.4), ylim=(size - 0.4, -0.6))
    axes.set_yticks(range(size), [_row_name(label) for label in labels[:-1]])
    axes.set_xticks(range(size), map(name, labels[1:]), rotation=angle, ha="left", rotation_mode="anchor")
    axes.tick_params(which="both", colors=INK, length=0, labelsize=8.5, labelbottom=False, labeltop=True)
    axes.spines[:].set_visible(False)
    axes.set_ylabel("The model of the row is ahead of …", color=INK)
    axes.set_xlabel("… the model of the column, by so many thousandths of AUC", color=INK)
    open_pairs = [
        f"{labels[row]} and {labels[column]}"
        for row in range(size + 1)
        for column in range(row + 1, size + 1)
        if not holds[row, column]
    ]
    pairs, unsearched = size * (size + 1) // 2, ", ".join(label for label in labels if label in comparison.unsearched)
    figure.alt = (
        f"Models from the highest to the lowest AUC: {', '.join(labels)}. {pairs - len(open_pairs)} of {pairs} paired "
        "differences hold. "
        + (f"Not told apart: {'; '.join(open_pairs)}." if open_pairs else "Every pair is told apart.")
        + (f" Settings not searched on this data: {unsearched}." if unsearched else "")
    )
    return figure


def literal(text: object) -> str:
    """A name for a figure: Matplotlib would read what stands between two dollar signs as a formula, and may fail."""
    return str(text).replace("$", r"\$")


def _row_name(label: object) -> str:
    """What a row is called, on lines so short that a long name leaves room for what is drawn."""
    return literal("\n".join(textwrap.wrap(str(label), LINE)))


def _further_lines(labels: Iterable[object]) -> float:
    """Inches that each row needs more than for a name of one line."""
    return 0.14 * max((_row_name(label).count("\n") for label in labels), default=0)


def _bands(table: pd.DataFrame, label: str) -> Chart:
    """A panel for each model: its mean and deviation in each band, all the others in grey behind."""
    bands = measured(table)
    places = np.arange(len(bands))
    means = table[[(band, "mean") for band in bands]].to_numpy(float)
    deviations = np.nan_to_num(table[[(band, "sd") for band in bands]].to_numpy(float))
    figure, panels = _panels(list(table.index))
    for number, axes in enumerate(panels):
        for other in np.delete(means, number, axis=0):
            axes.plot(places, other, color=BEHIND, lw=0.8, alpha=0.55)
        axes.errorbar(places, means[number], deviations[number], color=ACCENT, marker="o", ms=4, lw=1.8)
        axes.set_xticks(places, [band.split(" (")[0] for band in bands])
        axes.set_xlim(-0.4, len(bands) - 0.6)
    _label_panels(figure, panels, label, "AUC (exact, mid-rank)")
    parts = []
    for place, band in enumerate(bands):
        column = pd.Series(means[:, place], index=table.index).dropna()
        parts.append(
            f"{band}: highest {column.idxmax()} {column.max():.4f}, lowest {column.idxmin()} {column.min():.4f}"
            if len(column) > 1
            else f"{band}: {_in_words(column)}"
        )
    figure.alt = f"AUC by {label[0].lower()}{label[1:]}, a panel for each of {len(table)} models. {'; '.join(parts)}."
    return figure


def _panels(labels: Sequence[str], *, share_x: bool = True) -> tuple[Chart, list[Axes]]:
    """Small panels, four in a row, each titled by its label; the y-axis is shared."""
    columns = min(4, max(1, len(labels)))
    rows = max(1, -(-len(labels) // columns))
    figure = Chart(figsize=(9.0 if columns > 2 else 4.5 * columns, 1.0 + 1.75 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, sharey=True, sharex=share_x, squeeze=False)
    panels: list[Axes] = list(grid.ravel())
    for axes in panels[len(labels) :]:
        axes.remove()
    panels = panels[: len(labels)]
    for number, (axes, label) in enumerate(zip(panels, labels, strict=True)):
        axes.set_title(_row_name(label), fontsize=8.5, color=INK, loc="left")
        axes.tick_params(which="both", colors=INK, labelsize=7.5)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(INK)
        _grid(axes, "both")
        if share_x and number + columns >= len(labels):
            axes.tick_params(labelbottom=True)  # also where the panel below was removed
    return figure, panels


def _label_panels(figure: Chart, panels: Sequence[Axes], x: str, y: str) -> None:
    if panels:
        figure.supxlabel(x, color=INK, fontsize=9.5)
        figure.supylabel(y, color=INK, fontsize=9.5)


def _name_points(figure: Chart, axes: Axes, points: Sequence[tuple[float, float, str]]) -> None:
    """Write each point's name beside it, at the first place that covers neither a point nor an earlier name."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()
    pixel = figure.dpi / 72
    taken = [_around(axes.transData.transform((x, y)), 5 * pixel) for x, y, _ in points]
    offsets = [
        (side * 9, step * 10, "left" if side > 0 else "right")
        for step in (0, 1, -1, 2, -2, 3, -3, 4, -4, 5, -5)
        for side in (1, -1)
    ]
    for x, y, name in sorted(points, key=lambda point: -point[1]):
        for right, up, side in offsets:
            tried = axes.annotate(
                _row_name(name), (x, y), (right, up), textcoords="offset points", ha=side, va="center", fontsize=8,
                color=INK, arrowprops={"arrowstyle": "-", "lw": 0.5, "color": BEHIND, "shrinkB": 4} if up else None,
            )  # fmt: skip
            tried.update_positions(renderer)
            box = Text.get_window_extent(tried, renderer)  # of the text alone, without its line
            inside = axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1 + 0.02 * axes.bbox.width
            if inside and not any(box.overlaps(other) for other in taken):
                break
            if (right, up, side) != offsets[-1]:
                tried.remove()
        taken.append(box)


def _around(centre: np.ndarray, reach: float) -> Bbox:
    x, y = centre
    return Bbox.from_extents(x - reach, y - reach, x + reach, y + reach)


def single_panel(width: float = 9.0, height: float = 4.2) -> tuple[Chart, Axes]:
    """A chart of one panel; sides in inches."""
    figure = Chart(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def finish(axes: Axes, x: str, y: str, grid: str = "both") -> None:
    """Labels and grid ("x", "y", "both" or none), all in `INK`."""
    axes.set_xlabel(x, color=INK)
    axes.set_ylabel(y, color=INK)
    axes.tick_params(which="both", colors=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    _grid(axes, grid)


def _grid(axes: Axes, which: str) -> None:
    if which:
        show: Callable[..., None] = axes.grid
        show(axis=which, color=INK, alpha=0.15, lw=0.7)
        axes.set_axisbelow(True)


def _spread(values: Sequence[float]) -> str:
    low, high = int(values[0]), int(values[-1])
    return str(low) if low == high else f"{low} to {high}"


def _in_words(values: pd.Series) -> str:
    return ", ".join(f"{label} {value:.4f}" for label, value in values.items())
