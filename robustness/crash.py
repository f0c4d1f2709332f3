"""Kill, starve and crowd imgrec at seeded moments, and see that a plain second run ends as if nothing had happened.

    python robustness/crash.py --out docs/faults.md     # about ten minutes on two cores; Linux

Each stage runs in a process of its own in an empty folder. What it leaves undisturbed is the reference. Then the
process is killed (SIGKILL) at random moments and before single file operations, runs out of disk, of memory or of the
right to write, or meets another process that does the same work. After each fault

- whatever bears its final name equals the reference: nothing partial is taken for whole;
- no process of the stage is left;
- the same call again ends normally, with results equal to the reference bit by bit (timings and dates aside);
- no temporary name is left.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

import imgrec_lib
from imgrec_lib import InputError, extract_features, load_dataset, train_run
from imgrec_lib.data import storing
from imgrec_lib.data.dataset import Dataset
from imgrec_lib.data.images import ImageStore
from imgrec_lib.evaluation import Evaluation
from imgrec_lib.features import activations, extraction
from imgrec_lib.kernel_server import KERNEL
from imgrec_lib.matrix import Data, Matrix, run_matrix
from imgrec_lib.report import markdown_table, write_report
from imgrec_lib.request import Request
from imgrec_lib.runs import train as making
from imgrec_lib.training import read_checkpoint

MARK = "IMGREC_FAULT"
"""Environment variable by which the descendants of a stage are found."""

TIMINGS = ("cost", "finished", "versions")
"""Fields of a run record that differ between equal runs."""

WAIT = 240.0
"""Seconds after which a stage is given up."""


# The stages


@dataclass(frozen=True)
class Stage:
    """A piece of work that must survive.

    Attributes:
        name: its name in the table.
        work: does it in a folder, from the inputs; calls its third argument when the part to be disturbed begins.
        once: module and function that does the work that a lock guards; called once however many processes ask.
    """

    name: str
    work: Callable[[Path, Path, Callable[[], object]], None]
    once: tuple[object, str] | None = None


def prepare_images(inputs: Path, place: Path, begin: Callable[[], object]) -> None:
    begin()
    load_dataset("table", inputs, image_size=64, cache=place / "cache", progress=False)


def _images(dataset: Dataset) -> ImageStore:
    assert dataset.images is not None
    return dataset.images


def prepare_features(inputs: Path, place: Path, begin: Callable[[], object]) -> None:
    dataset = load_dataset("table", inputs, image_size=64, cache=inputs / "cache", progress=False)
    begin()
    extract_features(_images(dataset), size=64, cache=place / "cache", progress=False)


def train(inputs: Path, place: Path, begin: Callable[[], object]) -> None:
    dataset = load_dataset("table", inputs, image_size=64, cache=inputs / "cache", progress=False)
    features = extract_features(_images(dataset), size=64, cache=inputs / "cache", progress=False)
    begin()
    parameters = {"epochs": 12, "patience": 0, "factors": 8, "batch_size": 64}
    train_run(
        dataset, "imgrec-ft", place / "run", features=features, parameters=parameters, save_every=0.0, progress=False
    )


def train_end_to_end(inputs: Path, place: Path, begin: Callable[[], object]) -> None:
    os.environ["IMGREC_CACHE"] = str(place / "cache")
    dataset = load_dataset("table", inputs, image_size=64, cache=inputs / "cache", progress=False)
    begin()
    parameters = {
        "size": 32, "factors": 8, "phase1_epochs": 5, "phase1_patience": 0, "phase1_batch_size": 64,
        "phase2_epochs": 4, "phase2_patience": 0, "phase2_batch_size": 16,
    }  # fmt: skip
    train_run(dataset, "imgrec-ete", place / "run", parameters=parameters, save_every=0.0, progress=False)


def evaluate(inputs: Path, place: Path, begin: Callable[[], object]) -> None:
    """Disturbed from the start of the evaluation to the end of the run."""
    dataset = load_dataset("table", inputs, image_size=64, cache=inputs / "cache", progress=False)
    plain = making.evaluate

    def announced(*arguments: Any, **options: Any) -> Evaluation:
        begin()
        return plain(*arguments, **options)

    making.evaluate = announced
    parameters = {"epochs": 2, "patience": 0, "factors": 4}
    train_run(dataset, "bpr-mf", place / "run", parameters=parameters, save_every=0.0, progress=False)


def report(inputs: Path, place: Path, begin: Callable[[], object]) -> None:
    os.environ["IMGREC_CACHE"] = str(inputs / "cache")
    begin()
    write_report(inputs / "runs", place / "report", progress=False)


def matrix(inputs: Path, place: Path, begin: Callable[[], object], retry_failed: bool = False) -> None:
    os.environ["IMGREC_CACHE"] = str(place / "cache")
    begin()
    small = {"n_users": 60, "n_items": 50, "image_size": 32}
    asked = Matrix(
        datasets={"wardrobe": Data(options=small)}, models=["bpr-mf"], seeds=[0],
        parameters={"bpr-mf": {"epochs": 2}}, feature_options={"size": 32}, compare={},
    )  # fmt: skip
    ended = run_matrix(asked, place / "runs", place / "reports", workers=1, retry_failed=retry_failed, progress=False)
    failed = [f"{row.name}: {row.detail}" for row in ended if row.state != "done"]
    if failed:
        raise InputError(" ".join(failed))


IMAGES = Stage("image preparation", prepare_images, (storing, "_write_store"))
FEATURES = Stage("feature extraction", prepare_features, (extraction, "write_rows"))
TRAINING = Stage("training (ImgRec-FT)", train)
END_TO_END = Stage("training in two phases (ImgRec-EtE)", train_end_to_end, (activations, "write_rows"))
EVALUATION = Stage("evaluation and run record", evaluate)
REPORT = Stage("report", report)
MATRIX = Stage("matrix of notebooks", matrix)
RETRY = Stage(MATRIX.name, partial(matrix, retry_failed=True))
STAGES = (IMAGES, FEATURES, TRAINING, EVALUATION, END_TO_END, REPORT, MATRIX)


QUICK = (IMAGES, EVALUATION)
"""What the test suite tries; the others are of the same kind, or take longer."""


def make_inputs(folder: Path, items: int = 60, users: int = 80, pixels: int = 240) -> Path:
    """A catalogue of noise with random purchases, as a user would bring it, and two finished runs for the report."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    for i in range(items):
        noise = rng.integers(0, 256, (pixels, pixels, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / "images" / f"i{i:03}.png", compress_level=1)
    rows = [(f"u{u:03}", f"i{i:03}") for u in range(users) for i in rng.choice(items, 8, replace=False)]
    lines = ["user,item", *(",".join(row) for row in rows)]
    (folder / "interactions.csv").write_text("\n".join(lines) + "\n")
    (folder / "items.csv").write_text("item,category\n" + "".join(f"i{i:03},c{i % 4}\n" for i in range(items)))
    started = Process(Stage("inputs", _finished_runs), folder, folder)
    assert started.wait() == 0, started.message
    return folder


def _finished_runs(inputs: Path, place: Path, begin: Callable[[], object]) -> None:
    """Pictures, features and runs that later stages start from."""
    begin()
    options: dict[str, Any] = {"image_size": 64, "cache": str(inputs / "cache")}
    dataset = load_dataset("table", inputs, progress=False, **options)
    features = extract_features(_images(dataset), size=64, cache=inputs / "cache", progress=False)
    asked = Request(
        "poprank", dataset="table", root=str(inputs), dataset_options=options,
        feature_options={"size": 64, "cache": str(inputs / "cache")},
    )  # fmt: skip
    for model in ("poprank", "imgrec-ft"):
        parameters: dict[str, Any] = {} if model == "poprank" else {"epochs": 2, "factors": 4}
        request = replace(asked, model=model, parameters=parameters)
        train_run(dataset, request, inputs / "runs" / model, features=features, progress=False)


# Processes


class Process:
    """A stage in a forked process: its start needs no import. The parent itself computes nothing, so has no threads."""

    def __init__(
        self, stage: Stage, inputs: Path, place: Path, *, before: Callable[[], None] | None = None, kill_at: int = 0
    ) -> None:
        """Start it.

        Args:
            stage, inputs, place: what, from where, in which folder.
            before: called in the new process first, to limit or to watch it.
            kill_at: kill the process before its so manieth file operation below `place`.
        """
        self.token = f"{os.getpid()}-{time.monotonic_ns()}"
        self.log = Path(tempfile.mkstemp(prefix="imgrec-fault-")[1])
        self._begun, signal_end = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if not self.pid:
            self._run(stage, inputs, place, signal_end, before, kill_at)
        os.close(signal_end)
        self.status: int | None = None

    def _run(
        self,
        stage: Stage,
        inputs: Path,
        place: Path,
        signal_end: int,
        before: Callable[[], None] | None,
        kill_at: int,
    ) -> None:
        status = 4
        try:
            os.setsid()
            os.environ[MARK] = self.token
            log = os.open(self.log, os.O_WRONLY | os.O_TRUNC)
            os.dup2(log, 1)
            os.dup2(log, 2)
            if before is not None:
                before()
            operations = _watch_operations(place, kill_at)
            stage.work(inputs, place, lambda: os.write(signal_end, b"."))
            print(f"{operations[0]} file operations")
            status = 0
        except InputError as error:
            print(f"imgrec: {error}")
            status = 2
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(status)

    def wait_until_begun(self) -> None:
        os.read(self._begun, 1)

    def wait(self, seconds: float = WAIT) -> int:
        """The exit status, or minus the signal that ended it."""
        end = time.monotonic() + seconds
        while self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
                os.close(self._begun)
            elif time.monotonic() > end:
                self.kill()
                raise TimeoutError(f"a stage did not end within {seconds:.0f} seconds: {self.message}")
            else:
                time.sleep(0.002)
        return self.status

    def kill(self) -> bool:
        """Kill it, and it alone; whether it still ran."""
        os.kill(self.pid, signal.SIGKILL)
        return self.wait() == -signal.SIGKILL

    def descendants(self) -> list[int]:
        """Processes that it started, and that still run."""
        mark = f"{MARK}={self.token}".encode()
        found = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit() and int(folder.name) != os.getpid():
                try:
                    if mark in (folder / "environ").read_bytes().split(b"\0"):
                        found.append(int(folder.name))
                except OSError:
                    continue
        return found

    def end_descendants(self, seconds: float = 10.0) -> int:
        """Wait for them to notice; how many did not and had to be killed."""
        end = time.monotonic() + seconds
        while (left := self.descendants()) and time.monotonic() < end:
            time.sleep(0.1)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        return len(left)

    @property
    def message(self) -> str:
        return self.log.read_text(errors="replace").strip()

    def __del__(self) -> None:
        if self.pid:
            self.log.unlink(missing_ok=True)


def _watch_operations(place: Path, kill_at: int) -> list[int]:
    """Have Python report what it is about to do to files below `place`; die before the given operation.

    Returns:
        A list of one number, the operations so far.
    """
    prefix, count = str(place), [0]

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if event not in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod"):
            return
        writes = event != "open" or (isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR))
        if writes and isinstance(arguments[0], str | Path) and str(arguments[0]).startswith(prefix):
            count[0] += 1
            if count[0] == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    return count


# Results


def outcome(place: Path) -> dict[str, str]:
    """Everything below a folder that bears its final name, with a digest of what must be equal in equal runs."""
    found = {}
    for path in sorted(place.rglob("*")):
        name = path.relative_to(place).as_posix()
        if path.is_file() and not _temporary(name) and path.suffix != ".lock":
            found[name] = _digest(path, place)
    return found


def _temporary(name: str) -> bool:
    return any(part.endswith(".part") for part in name.split("/")) or name.endswith((".running.ipynb", ".failed.ipynb"))


def temporary_names(place: Path) -> list[str]:
    """What is left of names under which something was being written."""
    names = (path.relative_to(place).as_posix() for path in place.rglob("*"))
    return sorted(name for name in names if _temporary(name))


def _without_seconds(value: Any) -> Any:
    """What training wrote of its progress, but for how long its epochs took."""
    if isinstance(value, dict):
        return {key: _without_seconds(item) for key, item in value.items() if key != "seconds"}
    return [_without_seconds(item) for item in value] if isinstance(value, list) else value


def _digest(path: Path, place: Path) -> str:
    if path.name == "progress.json":  # only there while training, with times
        json.loads(path.read_text())
        content = b"whole"
    elif path.name == "run.json":
        record = json.loads(path.read_text())
        for key in TIMINGS:
            record.pop(key)
        content = json.dumps(record).replace(str(place), "").encode()
    elif path.name == "curve.csv":
        content = pd.read_csv(path).drop(columns="seconds").to_csv().encode()
    elif path.name.endswith(".status.json"):  # how far a notebook is, and when it began
        json.loads(path.read_text())
        content = b"whole"
    elif path.name == "training.safetensors":  # only there while training: it must be whole, and is gone at the end
        read_checkpoint(path)
        content = b"whole"
    elif path.suffix == ".safetensors":  # the file format leaves the order of its metadata to chance
        checkpoint = read_checkpoint(path)
        tensors = sorted(checkpoint.tensors.items())
        parts = [f"{name} {t.dtype} {tuple(t.shape)}".encode() + t.numpy().tobytes() for name, t in tensors]
        content = json.dumps(_without_seconds(checkpoint.progress)).encode() + b"".join(parts)
    elif path.name.startswith("fontlist-"):  # Matplotlib's own list, never twice in the same order
        json.loads(path.read_text())
        content = b"whole"
    elif path.suffix == ".ipynb":
        content = json.loads(path.read_text())["metadata"]["imgrec"]["address"].encode()
    else:
        content = path.read_bytes()
    return hashlib.sha256(content).hexdigest()


@dataclass
class Tally:
    """What came of one fault, tried several times on one stage.

    Attributes:
        fault, stage: what was done to what.
        tried: faults that really struck.
        survived: those after which all held.
        resumed: those after which something finished or half finished was found and used.
        left: processes that outlived their parent by more than ten seconds.
        problems: one sentence for each failure.
    """

    fault: str
    stage: str
    tried: int = 0
    survived: int = 0
    resumed: int = 0
    left: int = 0
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Reference:
    """An undisturbed run of a stage: its outcome, the seconds from where it may be disturbed, its file operations."""

    outcome: dict[str, str]
    seconds: float
    operations: int


def undisturbed(stage: Stage, inputs: Path, place: Path) -> Reference:
    """Run a stage without any fault."""
    process = Process(stage, inputs, place)
    process.wait_until_begun()
    began = time.monotonic()
    if process.wait() != 0:
        raise RuntimeError(f"{stage.name} fails undisturbed: {process.message}")
    seconds = time.monotonic() - began
    return Reference(outcome(place), seconds, int(re.findall(r"(\d+) file operations", process.message)[-1]))


def check(
    stage: Stage, inputs: Path, place: Path, reference: Reference, tally: Tally, found: Iterable[str] = ()
) -> None:
    """After a fault: nothing partial, and a plain second run gives the reference.

    Args:
        stage, inputs, place, reference: what was disturbed.
        tally: where the result is counted.
        found: problems that showed before.
    """
    problems = list(found)
    try:
        between = outcome(place)
        problems += [
            f"{name} is partial" for name, digest in between.items() if reference.outcome.get(name, digest) != digest
        ]
        tally.resumed += bool(between)
    except Exception as error:  # what cannot be read is partial
        problems.append(f"a file is partial: {error}")
    again = Process(stage, inputs, place)
    if again.wait() != 0:
        problems.append(f"the second run fails: {again.message[-300:]}")
    else:
        after = outcome(place)
        different = {n for n in after.keys() | reference.outcome.keys() if after.get(n) != reference.outcome.get(n)}
        problems += [f"{name} differs after the second run" for name in sorted(different)[:3]]
        problems += [f"{name} is left" for name in temporary_names(place)]
    tally.tried += 1
    tally.survived += not problems
    tally.problems += problems


# The faults


def kill_at_random(
    stage: Stage, inputs: Path, reference: Reference, base: Path, times: int, rng: random.Random
) -> Tally:
    """SIGKILL at moments uniform over the undisturbed duration; one in four second runs is killed as well."""
    tally = Tally("killed (SIGKILL) at a random moment", stage.name)
    attempts = 0
    while tally.tried < times and attempts < 4 * times:
        attempts += 1
        place = base / f"kill-{attempts}"
        struck = 0
        for _ in range(1 + (rng.random() < 0.25)):
            process = Process(stage, inputs, place)
            process.wait_until_begun()
            time.sleep(rng.uniform(0, reference.seconds))
            struck += process.kill()
            tally.left += process.end_descendants()
        if struck:
            survived = tally.survived
            check(stage, inputs, place, reference, tally)
            tally.tried += struck - 1
            tally.survived += (struck - 1) * (tally.survived - survived)
        shutil.rmtree(place, ignore_errors=True)
    return tally


def kill_at_operations(
    stage: Stage, inputs: Path, reference: Reference, base: Path, times: int, rng: random.Random
) -> Tally:
    """SIGKILL before single file operations: creating, opening for writing, renaming, deleting."""
    tally = Tally("killed (SIGKILL) before a file operation", stage.name)
    every = range(1, reference.operations + 1)
    for number in sorted(rng.sample(every, min(times, len(every)))):
        struck = False
        while number and not struck:
            place = base / f"operation-{number}"
            struck = Process(stage, inputs, place, kill_at=number).wait() == -signal.SIGKILL
            if struck:
                check(stage, inputs, place, reference, tally)
            shutil.rmtree(place, ignore_errors=True)
            number //= 2  # how many there are depends a little on the time
    return tally


def limited(kind: int, size: Callable[[], int]) -> Callable[[], None]:
    """A limit on what the process may use, to be set when it starts."""
    return lambda: resource.setrlimit(kind, (size(), size()))


def _memory_in_use() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def starve(
    stage: Stage,
    inputs: Path,
    reference: Reference,
    base: Path,
    fault: str,
    before: Callable[[], None],
    sentence: str,
) -> Tally:
    """Run out of something: the stage stops with a sentence (where one is asked for), and leaves no temporary name."""
    tally = Tally(fault, stage.name)
    place = base / "starved"
    process = Process(stage, inputs, place, before=before)
    check(stage, inputs, place, reference, tally, _stopped(process, sentence, place))
    shutil.rmtree(place, ignore_errors=True)
    return tally


def _stopped(process: Process, sentence: str, place: Path) -> list[str]:
    """Problems of a run that ought to stop with that sentence (any error where it is empty) and leave nothing."""
    status, message = process.wait(), process.message
    problems = ["the fault did not strike"] if status == 0 else []
    if sentence and (status != 2 or sentence not in message):
        problems.append(f"no sentence but: {message[-300:]}")
    return problems + [f"{name} is left by the failed run" for name in temporary_names(place)]


@contextmanager
def small_disk(place: Path, kilobytes: int) -> Iterator[None]:
    """A file system of that size at `place`; CalledProcessError where it may not be mounted."""
    place.mkdir(parents=True)
    options = f"size={kilobytes}k"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "imgrec", str(place)], check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=False, capture_output=True)


def remount(place: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(place)], check=True, capture_output=True)


def fill_disk(stage: Stage, inputs: Path, reference: Reference, base: Path) -> Tally:
    """A disk with room for a third of the work; then with room enough."""
    tally = Tally("disk full (tmpfs)", stage.name)
    place = base / "disk"
    probe = base / "probe"
    undisturbed(stage, inputs, probe)
    needed = sum(path.stat().st_size for path in probe.rglob("*") if path.is_file()) // 1024
    shutil.rmtree(probe)
    with small_disk(place, max(8, needed // 3)):
        found = _stopped(Process(stage, inputs, place), "free", place)
        remount(place, "size=1g")
        check(stage, inputs, place, reference, tally, found)
    place.rmdir()
    return tally


def forbid_writing(stage: Stage, inputs: Path, reference: Reference, base: Path) -> Tally:
    """A folder that cannot be written to; then one that can."""
    tally = Tally("read-only folder", stage.name)
    place = base / "forbidden"
    if os.geteuid() == 0:  # may write everywhere but on a file system that is read-only
        with small_disk(place, 1 << 20):
            remount(place, "ro")
            found = _stopped(Process(stage, inputs, place), "cannot be written", place)
            remount(place, "rw")
            check(stage, inputs, place, reference, tally, found)
    else:
        place.mkdir()
        place.chmod(0o555)
        found = _stopped(Process(stage, inputs, place), "cannot be written", place)
        place.chmod(0o755)
        check(stage, inputs, place, reference, tally, found)
    shutil.rmtree(place)
    return tally


def _counted(once: tuple[object, str], counter: Path) -> Callable[[], None]:
    """Let the process write a byte whenever it does the work that a lock guards."""

    def watch() -> None:
        module, name = once
        plain = getattr(module, name)

        def counted(*arguments: object, **options: object) -> object:
            with open(counter, "ab") as file:
                file.write(b".")
            time.sleep(0.2)  # so that the other process comes while this one works
            return plain(*arguments, **options)

        setattr(module, name, counted)

    return watch


def crowd(stage: Stage, inputs: Path, reference: Reference, base: Path, processes: int = 3) -> Tally:
    """Several processes at the same work in the same folder: it is done once."""
    assert stage.once is not None
    tally = Tally(f"{processes} processes at once", stage.name)
    place, counter = base / "crowd", base / "counter"
    place.mkdir()
    crowd = [Process(stage, inputs, place, before=_counted(stage.once, counter)) for _ in range(processes)]
    found = [f"one fails: {p.message[-300:]}" for p in crowd if p.wait() != 0]
    if counter.stat().st_size != 1:
        found.append(f"the work was done {counter.stat().st_size} times")
    check(stage, inputs, place, reference, tally, found)
    counter.unlink()
    shutil.rmtree(place)
    return tally


def kill_the_holder(stage: Stage, inputs: Path, reference: Reference, base: Path) -> Tally:
    """The process that holds the lock is killed while another waits for it: the other does the work."""
    assert stage.once is not None
    tally = Tally("killed while another process waits for its lock", stage.name)
    place, counter = base / "holder", base / "counter"
    place.mkdir()
    holder = Process(stage, inputs, place, before=_counted(stage.once, counter))
    while not counter.exists():
        time.sleep(0.005)
    waiting = Process(stage, inputs, place)
    waiting.wait_until_begun()
    time.sleep(0.05)
    found = [] if holder.kill() else ["the holder had ended"]
    if waiting.wait() != 0:
        found.append(f"the other fails: {waiting.message[-300:]}")
    check(stage, inputs, place, reference, tally, found)
    counter.unlink()
    shutil.rmtree(place)
    return tally


def kill_a_worker(stage: Stage, inputs: Path, reference: Reference, base: Path) -> Tally:
    """One kernel of a matrix is killed, as the system does when memory runs out: the matrix says so and goes on.

    A run that failed is not tried again by itself, so the second run says `retry_failed`.
    """
    tally = Tally("a notebook's kernel killed, as when memory runs out", stage.name)
    place = base / "worker"
    process = Process(stage, inputs, place)
    process.wait_until_begun()
    end = time.monotonic() + WAIT
    kernels: list[int] = []
    while not kernels and time.monotonic() < end:
        kernels = [pid for pid in process.descendants() if _name(pid) == KERNEL]
        time.sleep(0.05)
    os.kill(kernels[0], signal.SIGKILL)
    status = process.wait()
    found = [] if status == 2 and "killed" in process.message else [f"no sentence but: {process.message[-300:]}"]
    tally.left += process.end_descendants()
    check(RETRY, inputs, place, reference, tally, found)
    shutil.rmtree(place)
    return tally


def _name(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/comm").read_bytes().strip()
    except OSError:
        return b""


# The table


KILLS = {IMAGES: 8, FEATURES: 8, TRAINING: 9, EVALUATION: 9, END_TO_END: 9, REPORT: 5, MATRIX: 3}
"""At random moments; together more than fifty."""
OPERATIONS = 3


def try_all(base: Path, seed: int, stages: tuple[Stage, ...] = STAGES, quick: bool = False) -> Iterator[Tally]:
    """Every fault on every stage that it can strike.

    Args:
        base: an empty folder.
        seed: seeds the moments.
        stages: the stages.
        quick: two kills of each stage, and the other faults of the first stage alone.
    """
    rng = random.Random(seed)
    inputs = make_inputs(base / "inputs")
    file_limit = limited(resource.RLIMIT_FSIZE, lambda: 4096)
    memory_limit = limited(resource.RLIMIT_AS, lambda: _memory_in_use() + 40 * 2**20)
    mountable = os.geteuid() == 0
    for number, stage in enumerate(stages):
        work = base / f"{number}"
        work.mkdir()
        reference = undisturbed(stage, inputs, work / "reference")
        yield kill_at_random(stage, inputs, reference, work, 1 if quick else KILLS[stage], rng)
        if stage is MATRIX:
            yield kill_a_worker(stage, inputs, reference, work)
            continue
        yield kill_at_operations(stage, inputs, reference, work, 1 if quick else OPERATIONS, rng)
        if quick and stage is not IMAGES:
            continue  # kills alone
        yield starve(stage, inputs, reference, work, "files may not grow beyond 4 kB (a quota)", file_limit, "no room")
        if mountable:
            yield fill_disk(stage, inputs, reference, work)
        yield forbid_writing(stage, inputs, reference, work)
        if stage in (FEATURES, END_TO_END):
            yield starve(stage, inputs, reference, work, "out of memory (40 MB more than at rest)", memory_limit, "")
        if stage.once is not None:
            yield crowd(stage, inputs, reference, work)
            yield kill_the_holder(stage, inputs, reference, work)


def page_of(tallies: list[Tally], seed: int, seconds: float) -> str:
    """The table as Markdown."""
    reached = {t.stage for t in tallies}
    kills = sum(t.tried for t in tallies if t.fault.startswith("killed"))
    left = sum(t.left for t in tallies)
    names = ("torch", "numpy", "pandas", "pillow", "safetensors", "papermill", "ipykernel")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    lines = [
        "# Faults tried and survived",
        "",
        "Written by `robustness/crash.py`, which says what each fault is and what is checked after it: nothing partial "
        "bears its final name, no process is left, the same call again ends normally with results equal to those of an "
        "undisturbed run bit by bit (timings and dates aside), and no temporary name is left.",
        "",
        f"{sum(t.survived for t in tallies)} of {sum(t.tried for t in tallies)} faults survived; {kills} of them were "
        f"kills. {left} processes outlived their parent by more than ten seconds.",
        "",
        markdown_table(
            ["fault", "stage", "tried", "survived", "found something to go on from"],
            [[t.fault, t.stage, str(t.tried), str(t.survived), str(t.resumed)] for t in tallies],
        ),
        *(f"- {t.fault}, {t.stage}: {problem}" for t in tallies for problem in t.problems),
        *(f"- Not reached in this run: {stage.name}." for stage in STAGES if stage.name not in reached),
        "",
        f"Seed {seed}; {datetime.now(UTC):%Y-%m-%d}, {seconds / 60:.0f} minutes; {platform.system()}, Python "
        f"{platform.python_version()}, imgrec {imgrec_lib.__version__}, {versions}; on the CPU. A power cut is not "
        "among the faults: files are renamed into place but not forced to the disk.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Try faults and write the table of what was survived.")
    parser.add_argument("--out", type=Path, help="where the table goes; by default docs/faults.md, of all stages only")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a few faults, and no table")
    parser.add_argument("--stage", action="append", help="part of a stage's name; by default all")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    every = QUICK if arguments.quick else STAGES
    stages = tuple(s for s in every if not arguments.stage or any(part in s.name for part in arguments.stage))
    out = arguments.out or (None if arguments.stage or arguments.quick else Path("docs/faults.md"))
    began = time.monotonic()
    tallies: list[Tally] = []
    with tempfile.TemporaryDirectory(prefix="imgrec-faults-") as base:
        for tally in try_all(Path(base).resolve(), arguments.seed, stages, arguments.quick):
            tallies.append(tally)
            print(
                f"{tally.survived}/{tally.tried}  {tally.fault}: {tally.stage}",
                *tally.problems,
                sep="\n    ",
                flush=True,
            )
            if out is not None:  # after each, so that a stopped run leaves its table too
                out.write_text(page_of(tallies, arguments.seed, time.monotonic() - began))
    if any(tally.problems for tally in tallies):
        sys.exit(1)


if __name__ == "__main__":
    main()
