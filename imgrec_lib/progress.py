"""Progress bars: drawn by tqdm, or, in a notebook that a command runs, kept in a file that the command reads.

A bar that is drawn into an executed notebook would stay there, dead, and the command that waits for the notebook would
see nothing but its cells. So a command names a file (the environment variable `IMGREC_PROGRESS`) to the process that it
starts, and shows what it finds there: pictures, epochs, bytes.
"""

from __future__ import annotations

import io
import json
import os
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm
from tqdm.std import tqdm as plain_tqdm

from imgrec_lib.files import write_json

PLACE = "IMGREC_PROGRESS"
"""Environment variable: the file that stands for the screen."""


@dataclass(frozen=True)
class Work:
    """How far some work is.

    Attributes:
        title: what it is.
        done, total: how much of it; `total` is None where that is unknown.
        unit: of what ("image", "epoch", ...).
        note: what else the bar says, such as a loss.
    """

    title: str
    done: float
    total: float | None
    unit: str
    note: str = ""

    @classmethod
    def read(cls, path: Path) -> Work | None:
        """The work in a file; None where there is none that can be read."""
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def __str__(self) -> str:
        of = "" if self.total is None else f" of {self.total:,.0f}"
        return f"{self.title}: {self.done:,.0f}{of}" + (f", {self.note}" if self.note else "")


def progress_bar(iterable: Iterable[Any] | None = None, **options: Any) -> plain_tqdm[Any]:
    """A progress bar; arguments as of `tqdm`.

    Where the environment variable `IMGREC_PROGRESS` names a file, the bar writes there where it stands, and draws
    nothing.
    """
    place = os.environ.get(PLACE)
    if not place or options.get("disable"):
        return tqdm(iterable, **options)
    return Kept(iterable, file=io.StringIO(), place=Path(place), **options)


class Kept(plain_tqdm):
    """A bar that is kept in a file."""

    def __init__(self, iterable: Iterable[Any] | None, *, place: Path, **options: Any) -> None:
        self.place = place
        super().__init__(iterable, **options)

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        work = Work(self.desc, self.n, self.total, self.unit, str(self.postfix or ""))
        write_json(self.place, asdict(work))


@contextmanager
def showing(place: Path, *, every: float = 0.2) -> Iterator[None]:
    """Draw on the standard error, while the context lasts, the bars that another process keeps in a file."""
    stop = threading.Event()

    def follow() -> None:
        bar: plain_tqdm[Any] | None = None
        while not stop.wait(every):
            work = Work.read(place)
            if work is None:
                continue
            if bar is None or bar.desc != work.title or work.done < bar.n:
                if bar is not None:
                    bar.close()
                bar = plain_tqdm(
                    total=work.total,
                    desc=work.title,
                    unit=work.unit,
                    initial=int(work.done),
                    file=sys.stderr,
                    position=0,
                )
            bar.set_postfix_str(work.note, refresh=False)
            bar.update(work.done - bar.n)
        if bar is not None:
            bar.close()

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
