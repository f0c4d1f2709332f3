"""The driver: executes what of a plan is not done, one process a run.

Runs go to executors of `concurrent.futures`: local processes by default, Dask's workers with `dask`. Each place where
a run can be executed is a pool of one process, kept from run to run, because importing papermill takes seconds; the
notebook's kernel, where a trial is trained, is always a process of its own (on Linux forked from one that has imported
what it needs, see `kernel_server`); a configuration of a search is trained in the
place's own. So a run that is killed breaks its own place alone, and that is set up again. Never threads: papermill's
working directory and the environment belong to a process.

The driver alone draws configurations and says what they reached; a worker adds the curve of its own configuration to
the journal, and asks it whether to go on. What a killed driver had drawn is in the journal, and goes on with the next.

Nothing outlives a driver that is killed: a worker ends when the driver does, and a kernel when its worker does.
"""

from __future__ import annotations

import os
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from multiprocessing import active_children, get_context, parent_process
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from imgrec_lib.data.dataset import Dataset
from imgrec_lib.errors import InputError, one_line
from imgrec_lib.extras import require
from imgrec_lib.features import Features
from imgrec_lib.files import fingerprint, make_folder
from imgrec_lib.kernel_server import KernelServer
from imgrec_lib.matrix.definition import Matrix
from imgrec_lib.matrix.facts import Facts, known_facts, read_facts
from imgrec_lib.matrix.tasks import HEARTBEAT, Plan, Searching, Task, all_facts, plan
from imgrec_lib.matrix.view import Row, live_view, rows
from imgrec_lib.models import model_card
from imgrec_lib.notebooks import how_it_ended, run_notebook
from imgrec_lib.options import Count
from imgrec_lib.request import Request
from imgrec_lib.runs import open_run
from imgrec_lib.search import try_out
from imgrec_lib.tracking import check_trackers, track


def run_matrix(
    matrix: Matrix,
    runs: Path,
    reports: Path,
    *,
    workers: Count | None = None,
    dask: str = "",
    only: Mapping[str, Iterable[str]] | None = None,
    retry_failed: bool = False,
    force: bool = False,
    progress: bool = True,
) -> list[Row]:
    """Execute what of a matrix is not done yet.

    A run that fails stops nothing else. It stays failed, and is not tried again, until its code, parameters or data
    change or `retry_failed` says so; one that was interrupted goes on from its last saved epoch.

    Args:
        matrix, runs, reports, only: see `plan`. With `only`, nothing is compared at the end.
        workers: processes at a time; by default one for each core, or for each run that the devices may have.
        dask: address of a Dask scheduler whose workers take the place of local processes; runs, reports, data and
            cache must lie where all of them see them.
        retry_failed: run again what has failed.
        force: run again also what is done.
        progress: show what is going on.

    Returns:
        Where every notebook of the matrix stands now.

    Raises:
        InputError: a tracker is unknown or not installed, another driver is at work in `runs`, a device is not there,
            or the scheduler cannot be reached or has workers of several threads.
    """
    check_trackers(matrix.track)
    runs, reports = Path(runs), Path(reports)
    make_folder(runs)
    try:
        lock = FileLock(runs / ".driver.lock").acquire(timeout=0)
    except Timeout:
        raise InputError(
            f"another 'imgrec run' is at work in {runs}: watch it with 'imgrec watch', or choose another --runs."
        ) from None
    with lock:
        driver = _Driver(matrix, runs, reports, dict(only or {}))
        for task in driver.plan().runs:
            if force:
                task.forget()
            elif retry_failed and task.state == "failed":
                task.record("interrupted")
        try:
            with (
                _places(matrix, workers, dask) as places,
                live_view(driver.rows, progress, len(places)) as driver.say,
            ):
                driver.prepare(places)
                driver.train(places)
                driver.compare(places)
                driver.track()
        finally:
            for task, _ in driver.running.values():  # by Ctrl-C; their processes are gone by now
                task.record("interrupted")
        return driver.rows()


@dataclass
class _Driver:
    """What is known while a matrix is executed."""

    matrix: Matrix
    runs: Path
    reports: Path
    only: dict[str, Iterable[str]]
    facts: dict[str, Facts | None] = field(init=False)
    started: set[Path] = field(default_factory=set)
    running: dict[Future[None], tuple[Task, _Place]] = field(default_factory=dict)
    say: Callable[[str], None] = print

    def __post_init__(self) -> None:
        self.facts = all_facts(self.matrix, self.runs)

    def plan(self) -> Plan:
        return plan(self.matrix, self.runs, self.reports, self.facts, self.only)

    def rows(self) -> list[Row]:
        return rows(self.plan(), self.runs)

    def prepare(self, places: Sequence[_Place]) -> None:
        """Read and prepare each dataset that a run still needs, with the machine to itself."""
        made = self.plan()
        for name in made.unread:
            tasks = [task for task in made.data if task.labels["dataset"] == name]
            tasks[0].record("running")
            with _heartbeat(tasks[0]):
                data = self.matrix.datasets[name]
                error = places[0].alone(read_facts, data, self.runs.absolute(), self.matrix.sees_pictures(data))
            known = known_facts(data, self.runs, self.matrix.sees_pictures(data))
            if error is None and known is None:
                error = (
                    f"what was read is not in {self.runs}: with Dask all workers must see that folder, and the data "
                    "must not change while it is read."
                )
            if error is not None:
                self.say(f"failed: dataset {name}: {error}")
                for task in tasks:
                    task.record("failed", error)
            self.facts[name] = known if error is None else None
        made = self.plan()
        needed = {task.labels["dataset"] for task in made.runs if task.state not in ("done", "failed")}
        needed |= {each.labels["dataset"] for each in made.searches if each.left != 0}
        for task in made.data:
            dataset = task.labels["dataset"]
            if dataset in needed and self.facts[dataset] is not None and task.state != "done":
                self.ended(task, places[0].alone(_execute, task, places[0].device, places[0].cores))

    def train(self, places: Sequence[_Place]) -> None:
        """Execute searches and trials; the trials of a search's winner start when its last configuration has ended."""
        free = list(places)
        for each in self.plan().searches:
            each.study.mend()
        queue = self.trainable()
        while queue or self.running:
            while queue and free:
                task, place = queue.pop(0), free.pop(0)
                self.started.add(task.output)
                self.running[place.submit(_execute, task, place.device, place.threads)] = task, place
                if free and not queue:  # a configuration is drawn no sooner than it can be tried
                    queue = self.trainable()
            ended = [(future, *self.running.pop(future)) for future in wait(self.running, None, FIRST_COMPLETED).done]
            for future, task, place in ended:
                self.ended(task, place.outcome(future))
                free.append(place)
            queue = queue or self.trainable()

    def trainable(self) -> list[Task]:
        """The runs that are to be executed and were not started yet; where there are none, a configuration is drawn."""
        made = self.plan()
        broken = {task.labels["dataset"] for task in made.data if task.state == "failed"} | set(made.unread)
        for search in made.searches:
            _tell(search)
        while not (found := [task for task in made.runs if self._is_new(task, broken)]):
            unspent = [each for each in made.searches if each.left != 0 and each.labels["dataset"] not in broken]
            if not unspent:
                return []
            # The search with the fewest configurations under way: a sampler learns from those that have ended.
            min(unspent, key=_under_way).study.draw()
            made = self.plan()
        return found

    def _is_new(self, task: Task, broken: Collection[str]) -> bool:
        ended = task.state in ("done", "failed") or task.output in self.started
        return not ended and task.labels["dataset"] not in broken

    def compare(self, places: Sequence[_Place]) -> None:
        """Execute the notebooks that compare the trials, where there are new ones."""
        for task in self.plan().comparisons:
            if task.state != "done":
                self.ended(task, places[0].alone(_execute, task, places[0].device, places[0].cores))

    def track(self) -> None:
        """Write the finished trials to the experiment trackers that the matrix names; one that fails stops nothing."""
        for name in self.matrix.track:
            for task in self.plan().trials:
                if task.state == "done":
                    try:
                        track(open_run(task.folder), name)
                    except Exception as error:  # of the tracker's client, its network or its server
                        self.say(f"not tracked by {name}: {task.name}: {type(error).__name__}: {one_line(error)}")

    def ended(self, task: Task, error: str | None) -> None:
        if error is not None and task.state != "failed":
            task.record("failed", error)  # its worker could no longer say so
        self.say(f"done: {task.name}" if error is None else f"failed: {task.name}: {error}")


def _under_way(search: Searching) -> int:
    return sum(task.state not in ("done", "failed") for task in search.tasks)


def _tell(search: Searching) -> None:
    """Tell a study what its configurations have reached that have ended; those that failed stay open, to be retried."""
    untold = {trial.number for trial in search.study.drawn() if not trial.state.is_finished()}
    for task in search.tasks:
        if task.number in untold and task.state == "done":
            record = open_run(task.folder).record
            search.study.tell(task.number, record.validation.value(search.study.choose_by), pruned=record.pruned)


def _execute(task: Task, device: str, threads: int) -> None:
    """In a worker: execute one notebook or one configuration, and keep its status up to date."""
    _set_threads(threads)
    status = task.status
    if status is None or status.address != task.address:
        task.forget()  # what other code, data or parameters left behind
    task.record("running")
    parameters = dict(task.parameters)
    if "device" in parameters:
        parameters["device"] = device
    with _heartbeat(task):
        try:
            if task.study is None:
                server = _kernels() if KernelServer.is_supported() else None
                run_notebook(
                    task.notebook, parameters, task.output, address=task.address, progress=False, server=server
                )
            else:
                torch.set_num_threads(threads)
                request = Request.from_parameters(parameters)
                try_out(task.study, task.number, request, task.folder, *_loaded(request))
        except Exception as error:
            sentence = (
                one_line(error) if isinstance(error, InputError) else f"{type(error).__name__}: {one_line(error)}"
            )
            task.record("failed", sentence)
            raise InputError(sentence) from None
    task.record("done")


_kernels = cache(KernelServer)
"""The server of this process, which forks the kernels of its notebooks."""

_last: dict[str, tuple[Dataset, Features | None]] = {}
"""What this process has loaded last, by what was asked for: the configurations of a search share it."""


def _loaded(request: Request) -> tuple[Dataset, Features | None]:
    """The data of a request, and its features."""
    own = ("model", "profile", "parameters", "seed", "varied", "searched")
    shared = {name: value for name, value in request.to_json().items() if name not in own}
    key = fingerprint(shared, "features" in model_card(request.model).uses)
    if key not in _last:
        _last.clear()
        _last[key] = request.load(progress=False)
    return _last[key]


@contextmanager
def _heartbeat(task: Task) -> Iterator[None]:
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(HEARTBEAT):
            task.sign_of_life()

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@dataclass
class _Place:
    """Where one run at a time is executed.

    Attributes:
        device: of its runs.
        threads: of each of its runs, beside those of the other places.
        cores: threads of what runs while nothing else does.
        start: sets up its executor, at first and when it broke.
    """

    device: str
    threads: int
    cores: int
    start: Callable[[], Executor]
    executor: Executor | None = None
    process: Future[int] | None = None
    last: Future[Any] | None = None
    child: BaseProcess | None = None

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        if self.executor is None:
            self.executor = self.start()
            if isinstance(self.executor, ProcessPoolExecutor):
                before = set(active_children())
                self.process = self.executor.submit(os.getpid)
                self.child = next(iter(set(active_children()) - before), None)
        try:
            self.last = self.executor.submit(function, *arguments)
            return self.last
        except BrokenProcessPool:  # its process was killed between two runs
            self.executor = None
            return self.submit(function, *arguments)

    def outcome(self, future: Future[Any]) -> str | None:
        """Wait for a run; None, or what went wrong in one sentence."""
        try:
            future.result()
        except InputError as error:
            return str(error)
        except BrokenProcessPool:
            assert self.executor is not None
            self.executor.shutdown()  # after which the exit status is known
            self.executor = None
            code = self.child.exitcode if self.child is not None else None
            return f"its process {'ended' if code is None else how_it_ended(code)}"
        except Exception as error:  # Dask's: a worker that is lost, a scheduler that goes away
            return f"{type(error).__name__}: {one_line(error)}"
        return None

    def alone(self, function: Callable[..., Any], *arguments: Any) -> str | None:
        """Execute something and wait for it; None, or what went wrong in one sentence."""
        return self.outcome(self.submit(function, *arguments))

    def stop(self) -> None:
        """End the process: at once, and with it the kernel that it waits for, where one is running."""
        if self.executor is not None and self.process is not None:
            if self.last is None or self.last.done():
                self.executor.shutdown()  # a process that may end by itself gives back its semaphores
                return
            with suppress(BrokenProcessPool, ProcessLookupError):
                os.kill(self.process.result(), getattr(signal, "SIGKILL", signal.SIGTERM))
            self.executor.shutdown(wait=True, cancel_futures=True)


def places_of(matrix: Matrix, workers: int | None = None) -> int:
    """How many runs of a matrix go on at a time on this machine."""
    return len(_devices(matrix, workers))


@contextmanager
def _places(matrix: Matrix, workers: int | None, dask: str) -> Iterator[list[_Place]]:
    if dask:
        with _dask_places(matrix, workers, dask) as places:
            yield places
        return
    devices = _devices(matrix, workers)
    threads = max(1, _cores() // len(devices))
    with tempfile.TemporaryDirectory(prefix="imgrec-", ignore_cleanup_errors=True) as scratch:

        def start() -> Executor:
            return ProcessPoolExecutor(1, get_context("spawn"), _start_worker, (scratch,))

        places = [_Place(device, threads, _cores(), start) for device in devices]
        with _terminable():
            try:
                yield places
            finally:
                for place in places:
                    place.stop()


def _devices(matrix: Matrix, workers: int | None) -> list[str]:
    """The device of each place."""
    found: list[str] = []
    for device in matrix.devices:
        kind, _, number = device.partition(":")
        if kind not in ("cpu", "cuda") or (number and not number.isdigit()):
            raise InputError(f"a device is 'cpu', 'cuda' or a single GPU such as 'cuda:1', not {device!r}.")
        if kind == "cpu":
            found.append("cpu")
            continue
        visible = torch.cuda.device_count()
        if int(number or 0) >= visible:
            raise InputError(f"device {device!r} is not there: this machine shows {visible} GPUs.")
        found.extend([device] if number else [f"cuda:{index}" for index in range(visible)])
    if "cpu" in found and set(found) != {"cpu"}:
        raise InputError("CPU and GPUs in one matrix would give results that differ: keep one kind of device.")
    devices = list(dict.fromkeys(found))
    return devices * (workers or _cores()) if devices == ["cpu"] else (devices * matrix.runs_per_device)[:workers]


@contextmanager
def _dask_places(matrix: Matrix, workers: int | None, address: str) -> Iterator[list[_Place]]:
    require("dask")
    from distributed import Client

    try:
        client = Client(address, timeout=10, set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError(
            f"there is no Dask scheduler at {address} ({error}): start one with 'dask scheduler'."
        ) from error
    with client:
        threads_of = client.nthreads()
        if not threads_of:
            raise InputError(f"the Dask scheduler at {address} has no worker: start some with 'dask worker'.")
        if max(threads_of.values()) > 1:
            raise InputError("a notebook needs a process to itself: start Dask's workers with '--nthreads 1'.")
        hosts = client.run(socket.gethostname)
        cores = client.run(os.cpu_count)
        threads = min(max(1, cores[w] // list(hosts.values()).count(hosts[w])) for w in threads_of)
        # A task has effects and is no pure function of its arguments; it says itself when it failed.
        executor = client.get_executor(pure=False, retries=0)
        if len(matrix.devices) > 1 or matrix.devices[0] not in ("cpu", "cuda"):
            raise InputError("with Dask each worker sees its own GPU: write 'device: cuda'.")
        at_once = min(workers or len(threads_of), len(threads_of))
        yield [_Place(matrix.devices[0], threads, threads, lambda: executor) for _ in range(at_once)]


def _start_worker(scratch: str) -> None:
    """First thing in a worker: end with the driver, leave Ctrl-C to it, put temporary files where it deletes them."""
    parent = parent_process()
    assert parent is not None

    def end_with_the_driver() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_the_driver, daemon=True).start()
    if hasattr(os, "setsid"):
        os.setsid()  # away from the terminal, whose Ctrl-C is for the driver
    else:
        signal.signal(signal.SIGINT, lambda *_: None)
    os.environ["TMPDIR"] = scratch
    tempfile.tempdir = None
    import papermill  # noqa: F401 (takes a second, once)


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM end the driver like Ctrl-C: its workers are stopped, its temporary files deleted."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _set_threads(threads: int) -> None:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)


def _cores() -> int:
    return os.cpu_count() or 1
