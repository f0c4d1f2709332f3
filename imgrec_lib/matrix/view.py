"""Where a matrix stands, for people in a terminal or a notebook; read from the records on disk alone."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from imgrec_lib.matrix.definition import read_matrix, with_roots
from imgrec_lib.matrix.tasks import Plan, Searching, State, Status, Task, plan
from imgrec_lib.notebooks import progress_place
from imgrec_lib.progress import Work

ORDER: tuple[State, ...] = ("running", "failed", "interrupted", "stale", "to do", "waiting", "done")
STYLES: dict[State, str] = {"running": "bold", "failed": "bold red", "done": "green", "interrupted": "yellow"}


@dataclass(frozen=True)
class Row:
    """Where one notebook stands.

    Attributes:
        stage, labels: see `Task`.
        state: "done", "running", "failed", "interrupted" (goes on when run again), "stale" (done, but with other code,
            parameters or data), "to do", or "waiting" (for a search, or for the trials to compare).
        detail: the epoch of a running one, or what else it is at, the error of a failed one, what has changed under a
            stale one.
        seconds: how long it took; of a running one, since it began.
        expected: seconds that it will take, as finished runs of the same model and dataset did on average; None
            where there is none yet.
    """

    stage: str
    labels: Mapping[str, str]
    state: State
    detail: str = ""
    seconds: float | None = None
    expected: float | None = None

    @property
    def name(self) -> str:
        """The row in words: dataset, model, profile where it is not the default, what else tells it apart, seed."""
        words = [
            value for key, value in self.labels.items() if key != "seed" and (key, value) != ("profile", "default")
        ]
        words.append(
            "(search)" if self.stage == "search" else f"seed {self.labels['seed']}" if self.stage == "trial" else ""
        )
        return " ".join(words).rstrip()


def rows(made: Plan, runs: Path) -> list[Row]:
    """Where every notebook of a plan stands.

    Args:
        made: the plan.
        runs: folder of the run folders; what finished in it tells how long the rest will take.
    """
    history = _history(runs)
    found = [_row(task, history) for task in [*made.data, *made.runs]]
    for search in made.searches:
        if search.left != 0:
            number = "further" if search.left is None else f"{search.left} further"
            labels = {**search.labels, "setting": f"{number} configurations"}
            found.append(Row("search", labels, "to do", "to be drawn", expected=_expected(search, history)))
    for each in made.waiting:
        detail = each.problem or "for the winner of its search"
        state: State = "failed" if each.problem else "waiting"
        found.append(Row("trial", each.labels, state, detail, expected=history.get(_kind(each.labels))))
    unfinished = {row.labels["dataset"] for row in found if row.state not in ("done", "failed")}
    for task in made.comparisons:
        row = _row(task, history)
        if task.labels["dataset"] in unfinished and row.state != "running":
            row = Row(row.stage, row.labels, "waiting", "for the runs")
        found.append(row)
    return found


def _expected(search: Searching, history: Mapping[tuple[str, str], float]) -> float | None:
    """Seconds that what a search has not drawn yet will take: as many runs as before did, or what its minutes leave."""
    each, minutes = history.get(_kind(search.labels)), search.study.search.minutes
    spent = sum(task.status.seconds or 0.0 for task in search.tasks if task.status is not None)
    limits = [] if minutes is None else [60 * minutes - spent]
    limits += [] if each is None or search.left is None else [each * search.left]
    return min(limits, default=None)


def remaining(table: Sequence[Row], places: int) -> tuple[float | None, list[str]]:
    """Seconds until all is done, and the models on datasets that no finished run says anything of.

    Those are supposed to take as long as the finished runs of the same dataset on average, or of any where it has none.

    Args:
        table: from `rows`.
        places: runs at a time.

    Returns:
        The seconds, None where no run at all has ended; and the models on datasets.
    """
    ended = [(row.labels["dataset"], row.seconds) for row in table if _is_run(row) and row.state == "done"]
    known = [(dataset, seconds) for dataset, seconds in ended if seconds is not None]
    seconds, unknown = [], []
    for row in table:
        if row.state in ("done", "failed") or not _is_run(row):
            continue
        expected = row.expected
        if expected is None:
            unknown.append(f"{row.labels['model']} on {row.labels['dataset']}")
            alike = [took for dataset, took in known if dataset == row.labels["dataset"]] or [took for _, took in known]
            if not alike:
                return None, list(dict.fromkeys(unknown))
            expected = sum(alike) / len(alike)
        already = row.seconds or 0.0 if row.state == "running" else 0.0
        seconds.append(max(0.0, expected - already))
    return max(sum(seconds) / max(1, places), max(seconds, default=0.0)), list(dict.fromkeys(unknown))


def summary(table: Sequence[Row], places: int) -> str:
    """How many notebooks are in which state, how many runs are left, and how long they will take."""
    counts = Counter(row.state for row in table)
    words = [f"{counts[state]} {state}" for state in reversed(ORDER) if counts[state]]
    seconds, unknown = remaining(table, places)
    left = sum(_is_run(row) and row.state not in ("done", "failed") for row in table)
    if left:
        words.append(f"{left} {'run' if left == 1 else 'runs'} left")
        if seconds is None:
            words[-1] += ", for which there is no estimate before one of them has ended"
        else:
            words[-1] += f": about {_duration(seconds)}"
            if unknown:
                guessed = sum(_is_run(row) and row.expected is None and row.state not in ("done", "failed")
                              for row in table)  # fmt: skip
                words[-1] += f" ({guessed} of them guessed from other models)"
    return f"{len(table)} notebooks: " + ", ".join(words)


def _is_run(row: Row) -> bool:
    return row.stage in ("grid", "trial")


def lines(table: Sequence[Row], places: int) -> list[str]:
    """The table as text, one line a notebook, and the summary: what `--dry-run` prints."""
    text = []
    for row in table:
        length = row.seconds if row.state == "done" else row.expected
        took = "" if length is None else f"{'' if row.state == 'done' else '~'}{_duration(length)}"
        text.append(f"{row.state:11} {took:>8}  {row.name}{f': {row.detail}' if row.detail else ''}")
    unknown = remaining(table, places)[1]
    if unknown:
        text.append(f"nothing is known yet of: {', '.join(unknown)}")
    return [*text, summary(table, places)]


def render(table: Sequence[Row], places: int, height: int = 20) -> Group:
    """The table for a terminal or a notebook: a bar, the summary, and first what is running, then what failed.

    Args:
        table: from `rows`.
        places: runs at a time, for the expected end.
        height: at most so many notebooks are shown.
    """
    ordered = sorted(table, key=lambda row: ORDER.index(row.state))
    shown = Table.grid(padding=(0, 2, 0, 0))
    for column in ("state", "name", "time", "detail"):
        shown.add_column(justify="right" if column == "time" else "left", no_wrap=column != "detail")
    for row in ordered[:height]:
        length = row.seconds if row.state in ("done", "running") else row.expected
        took = "" if length is None else f"{'' if row.state in ('done', 'running') else '~'}{_duration(length)}"
        style = STYLES.get(row.state, "")
        shown.add_row(Text(row.state, style), Text(row.name), took, Text(row.detail))
    parts: list[RenderableType] = [Text(summary(table, places), "bold"), _bar(table), shown]
    if len(ordered) > height:
        parts.append(Text(f"and {len(ordered) - height} more", "dim"))
    return Group(*parts)


def watch_matrix(
    path: str | Path,
    runs: str | Path = "runs",
    reports: str | Path = "reports",
    *,
    roots: Iterable[str] = (),
    every: float = 2.0,
) -> None:
    """Show how far a matrix is that another process runs, until nothing is left to do; in a terminal or in JupyterLab.

    Only the records on disk are read. Interrupt the cell, or press Ctrl-C, to stop watching; the runs go on.

    Args:
        path: the matrix file.
        runs, reports: as given to `imgrec run`.
        roots: as given to its `--root`.
        every: seconds between looks.

    Raises:
        InputError: see `read_matrix`.
    """
    matrix = with_roots(read_matrix(Path(path)), roots)

    def look() -> list[Row]:
        return rows(plan(matrix, Path(runs), Path(reports)), Path(runs))

    table = look()
    with Live(console=Console(), auto_refresh=False) as live:
        while True:
            running = sum(row.state == "running" for row in table)
            live.update(render(table, running), refresh=True)
            if all(row.state in ("done", "failed") for row in table):
                return
            try:
                time.sleep(every)
            except KeyboardInterrupt:
                return
            table = look()


@contextmanager
def live_view(look: Callable[[], list[Row]], progress: bool, places: int = 1) -> Iterator[Callable[[str], None]]:
    """Show the table while the context lasts; yields a function that says that a notebook has ended.

    In a terminal or a notebook the table is drawn anew every second; elsewhere, as in a log file, each notebook that
    ends is one line.
    """
    console = Console(stderr=not _in_notebook())
    if not progress:
        yield lambda _: None
        return
    if not (console.is_terminal or console.is_jupyter):
        yield lambda sentence: print(sentence, file=sys.stderr, flush=True)
        return
    stop = threading.Event()
    with Live(render(look(), places), console=console, auto_refresh=False) as live:

        def draw() -> None:
            while not stop.wait(1.0):
                live.update(render(look(), places, max(5, console.height - 6)), refresh=True)

        thread = threading.Thread(target=draw, daemon=True)
        thread.start()
        try:
            yield lambda _: None
        finally:
            stop.set()
            thread.join()
            live.update(render(look(), places, max(5, console.height - 6)), refresh=True)


def _in_notebook() -> bool:
    return Console().is_jupyter


def _row(task: Task, history: Mapping[tuple[str, str], float]) -> Row:
    status, state, expected = task.status, task.state, history.get(_kind(task.labels))
    detail, seconds = "", None
    if status is not None and state in ("done", "failed"):
        seconds = status.seconds
        detail = status.error
    elif status is not None and state == "running":
        seconds = time.time() - status.began
        detail = _work(task)
    elif state == "stale":
        detail = task.changes
    return Row(task.stage, task.labels, state, detail, seconds, expected)


def _work(task: Task) -> str:
    """What a running notebook is at: the epoch while it trains, else how many pictures, or what else is counted."""
    work = Work.read(progress_place(task.output))
    return _epoch(task) or ("" if work is None else str(work))


def _epoch(task: Task) -> str:
    try:
        last = json.loads((task.folder / "progress.json").read_text(encoding="utf-8"))
        phase = f"phase {last['phase']}, " if last["phases"] > 1 else ""
        best = "" if last["best"] is None else f", validation {last['choose_by'].upper()} {last['best']:.4f}"
        return f"{phase}epoch {last['epoch']} of {last['epochs']}{best}"
    except (OSError, ValueError, KeyError):
        return ""


def _history(runs: Path) -> dict[tuple[str, str], float]:
    """Mean seconds of the finished notebooks below a folder, by dataset and model."""
    times: dict[tuple[str, str], list[float]] = {}
    for path in Path(runs).glob("**/*.status.json"):
        status = Status.read(path)
        if status is not None and status.state == "done" and status.seconds is not None:
            times.setdefault(_kind(status.labels), []).append(status.seconds)
    return {key: sum(values) / len(values) for key, values in times.items()}


def _kind(labels: Mapping[str, str]) -> tuple[str, str]:
    """What two notebooks that take about as long have in common."""
    return labels["dataset"], labels.get("model", "")


def _bar(table: Sequence[Row]) -> Table:
    ended = sum(row.state in ("done", "failed") for row in table)
    bar = Table.grid()  # which ends its line, as a bar alone does not
    bar.add_row(ProgressBar(max(1, len(table)), ended, 60, complete_style="green", finished_style="green"))
    return bar


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
