"""What a search saw, drawn: the best so far, the curves of its trainings, which settings matter, and each of them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from imgrec_lib.figures.curves import ACCENT, BEHIND, COLOURS, INK, Chart, finish, literal, single_panel
from imgrec_lib.results.trials import metric_heading
from imgrec_lib.search import Study

WIDE = 10
"""Positive values whose largest is so many times the smallest stand on a logarithmic axis."""


def best_so_far(study: Study) -> Chart:
    """What each configuration reached on the validation items, in the order in which they were drawn, and the best so
    far; one that was ended early is an open marker."""
    table = study.table()
    figure, axes = single_panel(height=3.4)
    done = table[table["state"] == "done"]
    early = table[table["state"] == "ended early"]
    axes.plot(done.index + 1, done["value"], "o", color=BEHIND, label="a configuration")
    axes.plot(early.index + 1, early["value"], "o", color=BEHIND, mfc="none", label="ended early")
    axes.step(done.index + 1, done["value"].cummax(), where="post", color=ACCENT, label="best so far")
    finish(axes, "Configuration", _capital(_heading(study)))
    axes.legend(frameon=False, labelcolor=INK, fontsize=8)
    number = _best(study)
    best = "" if number is None else f" Best: number {number + 1}, {done['value'].max():.4f}."
    others = f"{len(early)} ended early, {len(table) - len(done) - len(early)} failed or still open."
    figure.alt = f"{len(table)} configurations by {_heading(study)}: {len(done)} trained to their end, {others}{best}"
    return figure


def search_curves(study: Study) -> Chart:
    """The validation metric of each configuration by epoch of training; the best one is in colour."""
    figure, axes = single_panel(height=3.4)
    best = _best(study)
    curves = [(trial.number, sorted(trial.intermediate_values.items())) for trial in study.drawn()]
    curves = [(number, points) for number, points in curves if points]
    for number, points in sorted(curves, key=lambda curve: curve[0] == best):
        steps, values = zip(*points, strict=True)
        colour, width = (ACCENT, 1.8) if number == best else (BEHIND, 0.9)
        axes.plot(steps, values, color=colour, lw=width, marker="." if len(steps) == 1 else "")
    finish(axes, "Epoch", _capital(_heading(study)))
    figure.alt = f"{len(curves)} learning curves, {_heading(study)} by epoch" + (
        "." if best is None else f"; the best is of configuration {best + 1}."
    )
    return figure


def importance(study: Study) -> Chart | None:
    """How much of the differences between configurations each setting explains, shares that add up to 1 (PED-ANOVA,
    Watanabe et al. 2023, over the configurations trained to their end); None where fewer than four tell of it."""
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    done = study.table().query("state == 'done'")
    if len(done) < 4 or done["value"].nunique() < 2:
        return None
    shares = get_param_importances(study.opened(), evaluator=PedAnovaImportanceEvaluator())
    if not all(map(math.isfinite, shares.values())):
        return None
    figure, axes = single_panel(height=0.9 + 0.35 * len(shares))
    names = [name.replace("_", " ") for name in shares]
    axes.barh(names[::-1], list(shares.values())[::-1], color=ACCENT, height=0.6)
    finish(axes, "Share of the differences", "", grid="x")
    figure.alt = "How much each setting explains: " + ", ".join(
        f"{name} {share:.0%}" for name, share in zip(names, shares.values(), strict=True)
    ) + "."  # fmt: skip
    return figure


def slices(settings: pd.DataFrame, values: pd.Series, heading: str = "validation AUC") -> Chart | None:
    """What configurations reached, a panel for each setting that varies; the best one is in colour.

    Args:
        settings: a row for each configuration, a column for each setting.
        values: what each reached; missing for one that is not told.
        heading: what that is called.

    Returns:
        The chart; None where nothing varies, or nothing is told yet.
    """
    settings, told = settings[values.notna()], values.dropna().to_numpy(float)
    names = [name for name in settings.columns if len({_text(value) for value in settings[name]}) > 1]
    if not names:
        return None
    columns, best = min(3, len(names)), int(told.argmax())
    rows = math.ceil(len(names) / columns)
    figure = Chart(figsize=(9.0, 0.6 + 2.2 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    for axes, name in zip(panels, names, strict=False):
        places = _places(axes, settings[name].tolist())
        axes.plot(places, told, "o", color=BEHIND, ms=4)
        axes.plot(places[best], told[best], "o", color=COLOURS[2], ms=7)
        finish(axes, literal(_capital(name.replace("_", " "))), "")
    for axes in panels[len(names) :]:
        axes.remove()
    figure.supylabel(_capital(heading), color=INK, fontsize=9.5)
    words = ", ".join(f"{name.replace('_', ' ')} {_text(settings[name].iloc[best])}" for name in names)
    figure.alt = f"{_capital(heading)} of {len(told)} configurations by each setting; best {told[best]:.4f}: {words}."
    return figure


def _places(axes: Axes, values: list[Any]) -> np.ndarray:
    """Where values stand on a panel's axis: numbers by size, on a logarithmic one where they are far apart, and
    anything else, or few numbers, in places of their own."""
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    if numbers and len(set(values)) > 4:
        places = np.array(values, float)
        if places.min() > 0 and places.max() >= WIDE * places.min():
            axes.set_xscale("log")
        return places
    different = {_text(value): None for value in (sorted(values, key=float) if numbers else sorted(values, key=_text))}
    axes.set_xticks(range(len(different)), [literal(text) for text in different])
    axes.margins(x=0.2)
    return np.array([list(different).index(_text(value)) for value in values])


def _best(study: Study) -> int | None:
    """The number of the best configuration, from 0; None where none is told yet."""
    done = study.table().query("state == 'done'")["value"]
    return None if done.empty else int(done.index.to_numpy()[done.to_numpy().argmax()])


def _heading(study: Study) -> str:
    return f"validation {metric_heading(study.choose_by)}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _text(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
