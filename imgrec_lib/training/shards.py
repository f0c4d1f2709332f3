"""Tables whose rows are divided among the processes that train together (`TrainSettings.shard_tables`).

Each process holds consecutive rows of such a table, with the optimiser's moments of these, so that what a process holds
falls with their number. For each look-up it asks the holders for the different rows that its part of the batch needs,
and after the backward pass hands the gradients back to them, who add up and step: the bytes of a step follow the batch,
and not the catalogue. What is validated or written is gathered by the first process into a file without a name, so that
checkpoints are those of one process, and go on in any number of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor, nn

from imgrec_lib.files import Spool
from imgrec_lib.models.base import Recommender, look_up
from imgrec_lib.training import distributed
from imgrec_lib.training.rows import Announce

BLOCK = 1 << 24
"""Numbers that are handed to the first process at a time."""

Groups = dict[str, dict[str, Tensor]]


@dataclass(frozen=True)
class _LookUp:
    """Rows that this process asked for, and which of its own it was asked for in the same exchange.

    Attributes:
        table: the table.
        theirs: (m,) int64 rows of this process, those that process 0 asked for first.
        rows: (d, k) or (d,), a leaf: the rows that came, whose gradient is handed back.
        asked, answered: how many rows this process asked each process for, and each asked it for.
    """

    table: nn.Parameter
    theirs: Tensor
    rows: Tensor
    asked: list[int]
    answered: list[int]


class Shards:
    """The rows of a model's tables that this process holds; from here on the tables have no others.

    Args:
        model: the model, with whole tables.
        parameters: all that is trained, in the optimiser's order.
        tables: those that are divided, which `loss` reads by `look_up` alone; none for one process.
    """

    def __init__(self, model: Recommender, parameters: Sequence[nn.Parameter], tables: Sequence[nn.Parameter]) -> None:
        self.rank, self.world_size = distributed.rank(), distributed.world_size()
        self.lengths = {table: len(table) for table in tables}
        self.names = {name: each for name, each in model.named_parameters() if each in self.lengths}
        self.numbers = {str(number): each for number, each in enumerate(parameters) if each in self.lengths}
        self.waiting: list[_LookUp] = []
        for table in tables:
            table.data = self._own(table.data, table).clone()

    def _starts(self, table: nn.Parameter) -> Tensor:
        """(processes + 1,) int64: process p holds the rows from the p-th number to the next."""
        return torch.arange(self.world_size + 1) * self.lengths[table] // self.world_size

    def _own(self, whole: Tensor, table: nn.Parameter) -> Tensor:
        first, end = self._starts(table)[self.rank : self.rank + 2].tolist()
        return whole[first:end]

    @contextmanager
    def looked_up(self, announce: Announce) -> Iterator[None]:
        """Let look-ups of the tables bring rows of all processes, and tell `announce` of those that are read here."""
        try:
            for table in self.lengths:
                table.fetch_rows = partial(self._fetch, announce, table)  # type: ignore[attr-defined]
            yield
        finally:
            for table in self.lengths:
                del table.fetch_rows  # type: ignore[attr-defined]

    def _fetch(self, announce: Announce, table: nn.Parameter, index: Tensor) -> Tensor:
        different, place = index.unique(return_inverse=True)
        starts = self._starts(table)
        asked = torch.searchsorted(different, starts).diff()
        even = [1] * self.world_size
        answered = _exchanged(asked, even, even).tolist()
        theirs = _exchanged(different, asked.tolist(), answered) - starts[self.rank]
        announce(table, theirs)
        with torch.no_grad():
            rows = _exchanged(table[theirs], answered, asked.tolist())
        self.waiting.append(_LookUp(table, theirs, rows.requires_grad_(), asked.tolist(), answered))
        return look_up(rows, place)

    def hand_back(self) -> None:
        """Give the gradients of all rows that were looked up to their holders: as sparse ones of what each holds."""
        for table in self.lengths:
            index, values = [], []
            for one in (one for one in self.waiting if one.table is table):
                gradient = torch.zeros_like(one.rows) if one.rows.grad is None else one.rows.grad
                index.append(one.theirs)
                values.append(_exchanged(gradient, one.asked, one.answered))
            if index:
                table.grad = torch.sparse_coo_tensor(
                    torch.cat(index).unsqueeze(0), torch.cat(values), table.shape, check_invariants=False
                )
        self.waiting.clear()

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Let the first process see whole tables."""
        held = {table: table.data for table in self.lengths}
        try:
            for table, rows in held.items():
                table.data = self._gathered(rows, table)
            yield
        finally:
            for table, rows in held.items():
                table.data = rows

    def join(self) -> None:
        """Give the first process whole tables for good; the others keep their rows."""
        for table in self.lengths:
            table.data = self._gathered(table.data, table)

    def gathered(self, groups: Groups) -> Groups:
        """A checkpoint's groups of tensors with whole tables in the first process."""
        return self._changed(groups, self._gathered)

    def cut(self, groups: Groups) -> Groups:
        """A checkpoint's groups of tensors with the rows of this process: the inverse of `gathered`."""
        return self._changed(groups, self._own)

    def _changed(self, groups: Groups, change: Callable[[Tensor, nn.Parameter], Tensor]) -> Groups:
        def changed(group: str, name: str, value: Tensor) -> Tensor:
            table = self.numbers.get(name.partition(".")[0]) if group == "optimiser" else self.names.get(name)
            return value if table is None or not value.ndim else change(value, table)

        return {
            group: {name: changed(group, name, value) for name, value in values.items()}
            for group, values in groups.items()
        }

    def _gathered(self, rows: Tensor, table: nn.Parameter) -> Tensor:
        """The rows of all processes in the first one, memory-mapped; in the others those that they hold."""
        rows = rows.detach()
        at_once = max(1, BLOCK // max(1, rows[:1].numel()))
        if self.rank:
            for part in rows.split(at_once):
                dist.send(part.contiguous(), dst=0)
            return rows
        with Spool() as spool:
            spool.append(rows.numpy())
            for process, count in enumerate(self._starts(table).diff().tolist()[1:], 1):
                for first in range(0, count, at_once):
                    part = rows.new_empty(min(at_once, count - first), *rows.shape[1:])
                    dist.recv(part, src=process)
                    spool.append(part.numpy())
            return torch.from_numpy(spool.array())


def _exchanged(tensor: Tensor, sent: list[int], received: list[int]) -> Tensor:
    """What the processes sent this one, in their order, while it sends them so many rows of `tensor` each."""
    found = tensor.new_empty(sum(received), *tensor.shape[1:])
    dist.all_to_all_single(found, tensor.contiguous(), received, sent)
    return found
