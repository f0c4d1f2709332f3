"""Training whose cost follows the batch, not the catalogue: a step touches the rows that the batch looks up.

A dense step over a table of 166,270 items x 64 factors moves 0.3 GB through memory, for a batch that looks up a few
thousand rows. Here the gradient of such a table holds the batch's rows alone (`models.base.look_up`), and the
optimiser touches no others. SGD and Adagrad leave a row without gradient where it is, so that nothing changes but the
time (`RowAdagrad`). Adam does not: see `RowAdam`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.adam import adam

REMEMBERED = 256
"""Steps after which the first moment of a row without gradient, 0.9 a step, has come to nothing (1e-12)."""

ROWS_AT_ONCE = 4096
"""Rows brought up to date at once when all are: with their moments they fit into the processor's cache."""


@contextmanager
def rows_only(tables: Sequence[nn.Parameter], announce: Callable[[nn.Parameter, Tensor], None]) -> Iterator[None]:
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
    steps is first moved by the sum of these k steps. With moments m, v at its last gradient, step s, that sum is

        sum_{j=1..k} lr b1^j m / (1 - b1^(s+j)) / (sqrt(b2^j v / (1 - b2^(s+j))) + eps)
            = lr m sum_j w_j / (sqrt(v) + e_j) ~ lr m W / (sqrt(v) + E / W), where
        w_j = (b1 / sqrt(b2))^j sqrt(1 - b2^(s+j)) / (1 - b1^(s+j)),    W = sum_j w_j,
        e_j = eps sqrt((1 - b2^(s+j)) / b2^j),    E = sum_j w_j e_j.

    W and E are numbers that depend on s and k only. The weighted mean E / W takes the place of the e_j, which differ
    little over the ten or twenty steps that count: all else is exact. The step with a gradient itself is PyTorch's Adam
    on the looked-up rows, and the state that of `torch.optim.Adam` as soon as `catch_up` has run.

    Args:
        parameters: all that is trained.
        tables: those of them, each (n, k) or (n,), whose look-ups are announced by `look_up`.
        lr, eps: see `torch.optim.Adam`.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], tables: Sequence[nn.Parameter], lr: float, eps: float
    ) -> None:
        super().__init__(parameters, lr=lr, eps=eps, fused=True)
        self.tables = [_Table(table) for table in tables]

    def look_up(self, table: nn.Parameter, index: Tensor) -> None:
        """Bring the rows that are about to be read up to date: int64 index of any shape."""
        next(known for known in self.tables if known.rows is table).bring(index, self._settings())

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update. Rows that were looked up move, with or without a gradient; the others wait."""
        settings = self._settings()
        for table in self.tables:
            table.step(settings)
            self.state[table.rows] = table.state
            table.rows.grad = None  # Adam passes over parameters without gradient
        super().step(closure)

    def catch_up(self) -> None:
        """Bring all rows up to date, so that weights and state are those of Adam."""
        for table in self.tables:
            for part in torch.arange(len(table.rows)).split(ROWS_AT_ONCE):
                table.bring(part, self._settings())
                table.keep()
            table.load(table.state)

    def load_state_dict(self, state_dict: Any) -> None:
        super().load_state_dict(state_dict)
        for table in self.tables:
            table.load(self.state[table.rows])

    def _settings(self) -> dict[str, Any]:
        return self.param_groups[0]


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
        super().__init__(parameters, lr=lr, eps=eps)
        self.tables = list(tables)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        settings = self.param_groups[0]
        for table in self.tables:
            gradient, table.grad = table.grad, None  # Adagrad passes over parameters without gradient
            if gradient is None:
                continue
            rows, place = gradient._indices()[0].unique(return_inverse=True)
            values = table.new_zeros(len(rows), *table.shape[1:]).index_add_(0, place, gradient._values())
            squares = self.state[table]["sum"].index_select(0, rows).addcmul_(values, values)
            self.state[table]["sum"].index_copy_(0, rows, squares)
            self.state[table]["step"] += 1
            values.div_(squares.sqrt_().add_(settings["eps"]))
            table.index_add_(0, rows, values, alpha=-settings["lr"])
        super().step(closure)


class _Table:
    """One table under `RowAdam`: its moments, and up to which step each row is up to date."""

    def __init__(self, rows: nn.Parameter) -> None:
        self.rows = rows
        # Not `detach()`: rows may be brought up to date between a look-up and its backward pass, which needs no values.
        self.matrix = _matrix(rows.data)
        self.load({"exp_avg": torch.zeros_like(rows), "exp_avg_sq": torch.zeros_like(rows), "step": torch.zeros(())})

    def load(self, state: dict[str, Tensor]) -> None:
        """Take over a state in which all rows are up to date."""
        self.state = state
        self.first = self.now = int(state["step"])
        self.updated = torch.full((len(self.rows),), self.first)
        self.place = torch.zeros(len(self.rows), dtype=torch.int64)
        self.at_hand = torch.zeros(len(self.rows), dtype=torch.bool)  # whether a row is pending
        self.sums = np.zeros((REMEMBERED, 2))  # by s - first: W and E / eps of `RowAdam`, up to the present step
        self.pending: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []

    @torch.no_grad()
    def bring(self, index: Tensor, settings: dict[str, Any]) -> None:
        """Bring rows up to date and keep them at hand, with their moments, for the coming step."""
        b1, b2 = settings["betas"]
        rows = _distinct(index.reshape(-1), len(self.rows))
        if self.pending:
            rows = rows[~self.at_hand[rows]]
        self.at_hand[rows] = True
        values, mean, square = (t.index_select(0, rows) for t in (self.matrix, *self._moments()))
        since = self.updated[rows]
        idle = (self.now - since).float()
        if self.now > self.first:
            weight, epsilon = torch.from_numpy(self.sums)[since - self.first].float().split(1, 1)
            epsilon = settings["eps"] * epsilon / weight.clamp_min(1e-30)
            # A row that is up to date, or has never moved, moves by exactly 0.
            values.addcdiv_(mean * weight, square.sqrt().add_(epsilon).clamp_min_(1e-30), value=-settings["lr"])
            mean.mul_((b1**idle).unsqueeze(1))
            square.mul_((b2**idle).unsqueeze(1))
            self.matrix.index_copy_(0, rows, values)
        self.pending.append((rows, values, mean, square))

    def keep(self) -> None:
        """Write back what is pending, without a step."""
        for rows, _, mean, square in self.pending:
            for table, values in zip(self._moments(), (mean, square), strict=True):
                table.index_copy_(0, rows, values)
            self.updated[rows] = self.now
            self.at_hand[rows] = False
        self.pending = []

    def step(self, settings: dict[str, Any]) -> None:
        """Adam's step on the pending rows; those without gradient have a gradient of zero."""
        b1, b2 = settings["betas"]
        rows, values, mean, square = (_joined(parts) for parts in zip(*self.pending, strict=True))
        gradient = torch.zeros_like(values)
        if self.rows.grad is not None:
            self.place[rows] = torch.arange(len(rows))
            gradient.index_add_(0, self.place[self.rows.grad._indices()[0]], _matrix(self.rows.grad._values()))
        adam(
            [values], [gradient], [mean], [square], [], [self.state["step"]],
            fused=True, amsgrad=False, beta1=b1, beta2=b2, lr=settings["lr"], weight_decay=0.0, eps=settings["eps"],
            maximize=False,
        )  # fmt: skip
        self.matrix.index_copy_(0, rows, values)
        self.now += 1  # as the call has counted
        self._lengthen(b1, b2)
        self.pending = [(rows, values, mean, square)]
        self.keep()

    def _lengthen(self, b1: float, b2: float) -> None:
        """Add the present step to the sums of all rows that it finds without gradient."""
        place = self.now - self.first
        if place >= len(self.sums):
            self.sums = np.concatenate([self.sums, np.zeros_like(self.sums)])
        powers, start = _powers(b1, b2), max(0, place - REMEMBERED)
        left = 1 - b2**self.now
        self.sums[start:place] += powers[start - place :] * (np.array([left**0.5, left]) / (1 - b1**self.now))

    def _moments(self) -> tuple[Tensor, Tensor]:
        return _matrix(self.state["exp_avg"]), _matrix(self.state["exp_avg_sq"])


def _distinct(index: Tensor, size: int) -> Tensor:
    """The different values in (n,) int64 indices below `size`, ascending: by sorting few, by marking many."""
    if 32 * len(index) < size:
        return index.unique()
    asked = torch.zeros(size, dtype=torch.bool)
    asked[index] = True
    return asked.nonzero().squeeze(1)


@cache
def _powers(b1: float, b2: float) -> np.ndarray:
    """(b1 / sqrt(b2))^j and (b1 / b2)^j, j = REMEMBERED, ..., 1: but for factors of the step, w_j and w_j e_j / eps."""
    return (b1 / np.array([np.sqrt(b2), b2])) ** np.arange(REMEMBERED, 0, -1)[:, None]


def _matrix(table: Tensor) -> Tensor:
    """(n, k) or (n,) -> (n, k) or (n, 1), of the same memory."""
    return table.view(len(table), -1)


def _joined(parts: tuple[Tensor, ...]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
