"""`Results`: what the finished runs of one dataset say, computed once; tables, figures and pages only read it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from imgrec_lib.errors import InputError, tell
from imgrec_lib.results.comparison import Comparison, compare
from imgrec_lib.results.trials import Trials, group_trials
from imgrec_lib.runs import DatasetRecord, Metrics, Run


@dataclass(frozen=True, eq=False)
class Results:
    """The results of one dataset, made by `Results.of` or `Results.by_dataset`.

    Attributes:
        rows: one for each configuration, at least one, in registry order.
        lists: one for each program whose lists were compared (`serving.compare_lists`): they stand in the tables whose
            metrics lists allow, and take part in no comparison.
    """

    rows: tuple[Trials, ...]
    lists: tuple[Trials, ...] = ()

    @classmethod
    def of(cls, runs: Iterable[Run]) -> Results:
        """The results of runs on the same dataset, see `group_trials`.

        Raises:
            InputError: no run, or runs of several datasets, whose numbers cannot be compared.
        """
        runs = list(runs)
        if not runs:
            raise InputError("there is no run to put into a table: train one first with 'imgrec train'.")
        datasets = {run.record.dataset.fingerprint: run.record.dataset.name for run in runs}
        if len(datasets) > 1:
            names = ", ".join(f"{name} ({digits})" for digits, name in datasets.items())
            raise InputError(
                f"these runs are of {len(datasets)} datasets, {names}: take the results of each (Results.by_dataset)."
            )
        own = [run for run in runs if run.record.stage != "lists"]
        if not own:
            raise InputError(
                f"of the dataset {runs[0].record.dataset.name!r} there are lists from elsewhere and no run: train one."
            )
        return cls(group_trials(own), group_trials(run for run in runs if run.record.stage == "lists"))

    @classmethod
    def by_dataset(cls, runs: Iterable[Run]) -> list[Results]:
        """The results of each dataset (by its fingerprint), in the order of first appearance."""
        groups: dict[str, list[Run]] = {}
        for run in runs:
            groups.setdefault(run.record.dataset.fingerprint, []).append(run)
        for digits, group in list(groups.items()):
            if all(run.record.stage == "lists" for run in group) and len(groups) > 1:
                name, titles = group[0].record.dataset.name, ", ".join(run.record.title for run in group)
                tell(f"the lists of {titles} are of a dataset {name!r} of which there is no run: they are left out.")
                del groups[digits]
        return [cls.of(group) for group in groups.values()]

    @property
    def runs(self) -> list[Run]:
        """The runs of all rows."""
        return [run for row in self.rows for run in row.runs]

    @property
    def dataset(self) -> DatasetRecord:
        """What the runs keep of their dataset."""
        return self.rows[0].record.dataset

    @cached_property
    def oracle(self) -> list[Metrics]:
        """The metrics of the true preferences by each seed of the trials; empty where they are unknown."""
        known = {run.record.seed: run.record.oracle for run in self.runs if run.record.oracle is not None}
        return list(known.values())

    @cached_property
    def chosen_by(self) -> str:
        """The validation metric by which every trained row kept its weights; "auc" where they differ."""
        metrics = {run.record.validation.choose_by for run in self.runs if run.record.phases}
        return metrics.pop() if len(metrics) == 1 else "auc"

    @property
    def ranked(self) -> bool:
        """Whether a single user could be ranked; where all own the whole catalogue there is nothing to rank against."""
        return any(run.metrics["exact"]["users"] for run in self.runs if run.metrics)

    @cached_property
    def comparison(self) -> Comparison | None:
        """All rows compared pairwise; None for a single row, or where nobody can be ranked."""
        return compare(self.rows, self.chosen_by) if len(self.rows) > 1 and self.ranked else None

    @cached_property
    def best_first(self) -> Results:
        """The same with the rows ordered by the test metric that the runs were chosen by, for pages and tables.

        The order is for reading alone: nothing is chosen by it.
        """

        def mean(row: Trials) -> float:
            values = [run.metrics["exact"].get(self.chosen_by) for run in row.runs if run.metrics]
            return -math.inf if None in values or not values else float(np.mean([value or 0.0 for value in values]))

        return Results(tuple(sorted(self.rows, key=mean, reverse=True)), self.lists)

    def of_model(self, model: str, profile: str | None = None) -> tuple[Trials, ...]:
        """The rows of one model, and of one profile where it is named."""
        return tuple(r for r in self.rows if r.record.model == model and profile in (None, r.record.profile))
