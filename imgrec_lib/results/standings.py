"""The answer of one dataset's runs: its rows from the best to the last, and the verdict in a few sentences.

Every number is computed from the records; what chance may explain is said to be open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd

from imgrec_lib.errors import unknown_name
from imgrec_lib.features.controls import SHUFFLED_FEATURES
from imgrec_lib.results.comparison import user_values
from imgrec_lib.results.results import Results
from imgrec_lib.results.significance import ALPHA, Differences, mean_intervals, paired_differences
from imgrec_lib.results.trials import Trials, metric_heading

COMPARED = ("auc", "hr@10", "ndcg@10")
"""Metrics that may each name another winner: of the whole ranking, and of the list that a shop shows."""
LEADERS = 5


class Mean(NamedTuple):
    """A mean over users and its 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Standings:
    """The rows of one dataset by the metric that its runs were chosen by.

    Args:
        results: results in which some user can be ranked (`Results.ranked`).
    """

    results: Results

    @property
    def metric(self) -> str:
        """What the runs were chosen by."""
        return self.results.chosen_by

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row for each configuration, the best first; columns mean, low and high: the 95 % interval of the mean
        over users, each user's value averaged over the trials first."""
        return mean_intervals(self._values).sort_values("mean", ascending=False, kind="stable")

    @cached_property
    def differences(self) -> Differences | None:
        """All pairs of rows by the same metric; None for a single row."""
        if self.results.comparison is None or self.metric == "auc":
            return None if self.results.comparison is None else self.results.comparison.differences
        return paired_differences(self._values)

    @cached_property
    def controlled(self) -> dict[str, str]:
        """For each control, by its label, the row that differs from it by the control alone."""
        rows = self.results.rows
        plain = {_but_for_control(row): row.label for row in rows if row.record.control is None}
        controls = {row.label: _but_for_control(row) for row in rows if row.record.control is not None}
        return {label: plain[key] for label, key in controls.items() if key in plain}

    @cached_property
    def contestants(self) -> list[str]:
        """The rows that are no control, the best first; all of them where there is nothing but controls."""
        controls = {row.label for row in self.results.rows if row.record.control is not None}
        return [str(label) for label in self.table.index if label not in controls] or list(self.table.index)

    @property
    def verdict(self) -> list[str]:
        """What the runs say, the most important first.

        A sentence or two on who is best by the metric that the runs were chosen by, who cannot be told apart from it,
        and by which metric another row is best; what the items' own pictures add against shuffled ones, where some row
        sees pictures; and whether a lead may be one of the settings.
        """
        return [self._winners(), *self._pictures(), *self._unsearched()]

    def lines(self, count: int = LEADERS) -> list[str]:
        """The best rows for a terminal, one a line: place, mean, interval and name."""
        shown = self.contestants[:count]
        return [f"{place:3}. {self.in_words(label)}  {label}" for place, label in enumerate(shown, 1)]

    def in_words(self, label: str) -> str:
        """A row's mean and interval: "0.8541 [0.8443, 0.8636]"."""
        found = self.of(label)
        return f"{found.mean:.4f} [{found.low:.4f}, {found.high:.4f}]"

    def of(self, label: str) -> Mean:
        """A row of `table`.

        Raises:
            InputError: there is none.
        """
        if label not in self._means:
            raise unknown_name("row of the table", label, self._means)
        return self._means[label]

    def gain(self, control: str) -> tuple[float, float, float, bool]:
        """What a control's own row has above it: the mean difference, its 95 % interval, and whether it holds.

        The two rows have the same settings, so that the difference speaks of the pictures, searched or not.
        """
        d = self.differences
        if d is None or control not in self.controlled:
            raise unknown_name("control", control, self.controlled)
        pair = d.place(self.controlled[control]), d.place(control)
        return float(d.mean[pair]), float(d.low[pair]), float(d.high[pair]), bool(d.holds[pair])

    @cached_property
    def _means(self) -> dict[str, Mean]:
        return {str(label): Mean(*values) for label, *values in self.table.itertuples()}

    @cached_property
    def _values(self) -> pd.DataFrame:
        return user_values(self.results.rows, self.metric)

    def _winners(self) -> str:
        best, heading = self.contestants[0], metric_heading(self.metric)
        others = {each: found for each in COMPARED if each != self.metric and (found := self._best_by(each))[0]}
        if len(self.contestants) == 1:
            further = "".join(f", {metric_heading(each)} {value:.4f}" for each, (_, value) in others.items())
            return f"{best} has {heading} {self.in_words(best)}{further}; no other run is there to compare it with."
        close = self._not_apart()
        lead = f", not told apart from {_listed(close)}" if close else ", ahead of every other row beyond chance"
        first = f"By {heading} {best} is best, {self.in_words(best)}{lead}"
        elsewhere = {each: found for each, found in others.items() if best not in found[0]}
        if not elsewhere:
            if not others:
                return f"{first}."
            return f"{first}; it is best by {_listed([metric_heading(each) for each in others])} too."
        named = [f"by {metric_heading(each)} {_listed(who)} ({value:.4f})" for each, (who, value) in elsewhere.items()]
        return f"{first}. Other metrics name other winners: {', '.join(named)}."

    def _best_by(self, metric: str) -> tuple[list[str], float]:
        """The contestants with the highest mean as it is printed, and that mean; none where no record knows it."""
        means = {}
        for row in self.results.rows:
            values = [run.metrics["exact"].get(metric) for run in row.runs]
            if row.label in self.contestants and None not in values:
                means[row.label] = round(float(np.mean([value for value in values if value is not None])), 4)
        highest = max(means.values(), default=np.nan)
        return [label for label in self.contestants if means.get(label) == highest], highest

    def _not_apart(self) -> list[str]:
        """The contestants whose difference to the best one chance may explain, the best of them first."""
        d = self.differences
        assert d is not None
        best = d.place(self.contestants[0])
        close = [label for label in self.contestants[1:] if d.p[best, d.place(label)] > ALPHA]
        return close if len(close) <= LEADERS else [*close[: LEADERS - 1], f"{len(close) - LEADERS + 1} other rows"]

    @cached_property
    def shuffled(self) -> str:
        """What the controls have shuffled: "pictures", or "features" where words or numbers are among them."""
        controls = {row.record.control for row in self.results.rows if row.label in self.controlled}
        return "features" if SHUFFLED_FEATURES in controls else "pictures"

    def _pictures(self) -> list[str]:
        if not any(row.sees_pictures for row in self.results.rows):
            return []
        if not self.controlled:
            return ["What the pictures add was not measured: no run has shuffled ones (`controls:` in a matrix)."]
        gains = sorted(((*self.gain(control), own) for control, own in self.controlled.items()), reverse=True)
        words = [
            f"{_signed(mean)} [{_signed(low)}, {_signed(high)}] for {own}{'' if holds else ' (which may be chance)'}"
            for mean, low, high, holds, own in gains
        ]
        changes = f"{metric_heading(self.metric)} changes by {_listed(words)}"
        return [f"With the items' own {self.shuffled} in place of shuffled ones {changes}."]

    def _unsearched(self) -> list[str]:
        rows = self.results.rows
        count = sum(row.unsearched for row in rows)
        if not count:
            return []
        which = "all rows" if count == len(rows) else f"{count} of {len(rows)} rows"
        return [
            f"The settings of {which} were not searched on this data: a lead may be the settings', not the model's."
        ]


def _but_for_control(row: Trials) -> tuple[object, ...]:
    """What a row has in common with its control."""
    record = row.record
    features = {name: value for name, value in (record.features or {}).items() if name != "control"}
    return record.model, record.profile, repr(record.parameters), repr(record.phases), repr(features)


def _signed(value: float) -> str:
    return f"{value:+.4f}".replace("-", "\N{MINUS SIGN}")


def _listed(names: Sequence[str]) -> str:
    """Names in a sentence: "a, b and c"."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
