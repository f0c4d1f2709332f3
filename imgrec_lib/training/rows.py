"""Training whose cost follows the batch, not the catalogue: a step touches the rows that the batch looks up.

A dense step over a table of 166,270 items x 64 factors moves 0.3 GB through memory, for a batch that looks up a few
thousand rows. Here the gradient of such a table holds the batch's rows alone (`models.base.look_up`), and the
optimiser touches no others. SGD and Adagrad leave a row without gradient where it is, so that nothing changes but the
time (`RowAdagrad`). Adam does not: see `RowAdam`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

REMEMBERED = 256
"""A row's first moment keeps 0.9 of itself a step: after so many steps without a gradient 1e-12 of it is left."""

Announce = Callable[[nn.Parameter, Tensor], None]
"""Takes a table and the int64 index, of any shape, of rows that are about to be read."""


@contextmanager
def rows_only(tables: Sequence[nn.Parameter], announce: Announce) -> Iterator[None]:
    """Let look-ups of `tables` have gradients of the looked-up rows alone, and tell `announce` of each beforehand."""

    def announcer(table: nn.Parameter) -> Callable[[Tensor], None]:
        return lambda index: announce(table, index)

    try:
        for table in tables:
            table.announce_rows = announcer(table)  # type: ignore[attr-defined]
        with torch.sparse.check_sparse_tensor_invariants(False):  # said explicitly, or PyTorch warns of it
            yield
    finally:
        for table in tables:
            del table.announce_rows  # type: ignore[attr-defined]


class RowAdam(torch.optim.Adam):
    """Adam that updates the rows of `tables` when a batch looks them up, and all other parameters at every step.

    A row without gradient still moves under Adam, by its decaying first moment. A row that is looked up again after k
    steps is first moved by the sum of these k steps. With moments m, v when last up to date, step s, that sum is

        sum_{j=1..k} lr b1^j m / (1 - b1^(s+j)) / (sqrt(b2^j v / (1 - b2^(s+j))) + eps)
            = lr m sum_j w_j / (sqrt(v) + e_j) ~ lr m W / (sqrt(v) + E / W), where
        w_j = (b1 / sqrt(b2))^j sqrt(1 - b2^(s+j)) / (1 - b1^(s+j)),    W = sum_j w_j,
        e_j = eps sqrt((1 - b2^(s+j)) / b2^j),    E = sum_j w_j e_j.

    W and E are numbers that depend on s and k only. The weighted mean E / W takes the place of the e_j, which differ
    little over the ten or twenty steps that count: all else is exact. The step with a gradient is Adam's own, and the
    state that of `torch.optim.Adam` as soon as `catch_up` has run.

    Args:
        parameters: all that is trained.
        tables: those of them, each (n, k) or (n,), whose look-ups are announced by `look_up`.
        lr, eps: see `torch.optim.Adam`.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], tables: Sequence[nn.Parameter], lr: float, eps: float
    ) -> None:
        super().__init__(parameters, lr=lr, eps=eps, fused=True)
        for rows in tables:
            self.state[rows] = {"exp_avg": torch.zeros_like(rows), "exp_avg_sq": torch.zeros_like(rows)}
            self.state[rows]["step"] = torch.zeros(())
        self.tables = list(tables)
        self._begin()

    def look_up(self, table: nn.Parameter, index: Tensor) -> None:
        """Bring the rows that are about to be read up to date: int64 index of any shape."""
        if self.now > self.first:
            kept, group = self.kept[table], self.param_groups[0]
            _loops().settle(
                index.reshape(-1).numpy(), *kept.arrays, kept.updated, self.now, self.first, self.sums,
                group["lr"], *group["betas"], group["eps"],
            )  # fmt: skip

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update. Rows that have a gradient move; the others wait."""
        group = self.param_groups[0]
        self.now += 1
        self._lengthen(*group["betas"])
        for table in self.tables:
            self.state[table]["step"] += 1
            gradient, kept = _taken(table), self.kept[table]
            if gradient is not None:
                _loops().adam_step(
                    *gradient, *kept.arrays, kept.updated, self.now,
                    group["lr"], *group["betas"], group["eps"],
                )  # fmt: skip
        super().step(closure)

    def catch_up(self) -> None:
        """Bring all rows up to date, so that weights and state are those of Adam."""
        for table in self.tables:
            self.look_up(table, torch.arange(len(table)))
        self._begin()

    def load_state_dict(self, state_dict: Any) -> None:
        super().load_state_dict(state_dict)
        self._begin()

    def _begin(self) -> None:
        """Go on from a state in which all rows are up to date."""
        self.first = self.now = int(self.state[self.tables[0]]["step"]) if self.tables else 0
        self.sums = np.zeros((REMEMBERED, 2))  # by s - first: W and E / eps, up to the present step
        self.kept = {table: _Table.of(table, self.state[table], self.first) for table in self.tables}

    def _lengthen(self, b1: float, b2: float) -> None:
        """Add the present step to the sums that every row without a gradient shares."""
        place = self.now - self.first
        if place >= len(self.sums):
            self.sums = np.concatenate([self.sums, np.zeros_like(self.sums)])
        powers, start = _powers(b1, b2), max(0, place - REMEMBERED)
        left = 1 - b2**self.now
        self.sums[start:place] += powers[start - place :] * (np.array([left**0.5, left]) / (1 - b1**self.now))


class RowAdagrad(torch.optim.Adagrad):
    """Adagrad that takes the gradients of `tables` as they come from `rows_only`: with fewer passes than PyTorch's.

    Args:
        parameters: all that is trained.
        tables: those of them, each (n, k) or (n,), whose gradients hold some of their rows.
        lr, eps: see `torch.optim.Adagrad`.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], tables: Sequence[nn.Parameter], lr: float, eps: float
    ) -> None:
        super().__init__(parameters, lr=lr, eps=eps, fused=True)
        self.tables = list(tables)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        settings = self.param_groups[0]
        for table in self.tables:
            gradient = _taken(table)
            if gradient is None:
                continue
            squares = _matrix(self.state[table]["sum"])
            _loops().adagrad_step(*gradient, _matrix(table), squares, settings["lr"], settings["eps"])
            self.state[table]["step"] += 1
        super().step(closure)


@dataclass(frozen=True, eq=False)
class _Table:
    """What the loops need of a table under `RowAdam`.

    Attributes:
        arrays: values, first and second moments, (n, k) each, of the tensors' own memory.
        updated: (n,) int64, the step up to which each row is up to date.
    """

    arrays: tuple[np.ndarray, np.ndarray, np.ndarray]
    updated: np.ndarray

    @classmethod
    def of(cls, table: nn.Parameter, state: dict[str, Tensor], step: int) -> _Table:
        arrays = _matrix(table), _matrix(state["exp_avg"]), _matrix(state["exp_avg_sq"])
        return cls(arrays, np.full(len(table), step))


@cache
def _loops() -> ModuleType:
    """The compiled steps, imported when they are first wanted: small tables are trained without them."""
    from imgrec_lib.training import compiled

    return compiled


@cache
def _powers(b1: float, b2: float) -> np.ndarray:
    """(REMEMBERED, 2): (b1 / sqrt(b2))^j and (b1 / b2)^j for j = REMEMBERED, ..., 1, to which w_j and w_j e_j / eps are
    proportional, with factors that depend on the step alone."""
    return (b1 / np.array([np.sqrt(b2), b2])) ** np.arange(REMEMBERED, 0, -1)[:, None]


def _matrix(table: Tensor) -> np.ndarray:
    """(n, k) or (n,) -> (n, k) or (n, 1), of the same memory."""
    return table.detach().view(len(table), -1).numpy()


def _taken(table: nn.Parameter) -> tuple[np.ndarray, np.ndarray] | None:
    """Take a table's gradient from it, as (m,) rows and (m, k) values: PyTorch's optimisers then skip the table."""
    gradient, table.grad = table.grad, None
    if gradient is None:
        return None
    return gradient._indices()[0].contiguous().numpy(), _matrix(gradient._values().contiguous())
