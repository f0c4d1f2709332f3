"""The workers of a server: questions go to whoever is idle, the dead are replaced, and so is the run.

A question that a worker did not answer, because it died, is asked again of another: all questions only read. A run that
was put in the place of the served one is opened by new workers beside the old ones, and takes over in one step when
all of them are ready.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imgrec_lib.errors import InputError
from imgrec_lib.runs import open_run
from imgrec_lib.serving.messages import HEADER, packed

log = logging.getLogger("imgrec")

TRIES = 3
"""Workers that may die of one question before nobody else is asked it."""
LONGEST_ANSWER = 60.0
"""Seconds after which a worker that does not answer is ended."""
LONGEST_WAIT = 30.0
"""Seconds that a question waits for an idle worker."""
MOST_WAITING = 256
"""Questions that may wait at a time."""
LOOK_EVERY = 1.0
"""Seconds between looks at whether the run was replaced."""
WORKER = ("-m", "imgrec_lib.serving.worker")
"""What a worker's process runs."""
LONGEST_PAUSE = 30.0
"""Seconds, at most, between tries to start a worker in the place of another."""


class Busy(Exception):
    """More is asked than the workers can answer, or none of them is there."""


class NotStarted(Exception):
    """A worker's process ended before it had opened the run, for no reason that lies in the run."""


@dataclass(eq=False)
class Worker:
    """A process that answers.

    Attributes:
        process, reader, writer: the process, and its end of the socket.
        about: what it says of the run that it holds.
    """

    process: asyncio.subprocess.Process
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    about: dict[str, Any]

    @property
    def gone(self) -> bool:
        """Whether it has ended, as far as is known."""
        return self.reader.at_eof() or self.process.returncode is not None

    async def ask(self, question: Mapping[str, Any], picture: bytes) -> tuple[int, bytes]:
        """Status and JSON of an answer.

        Raises:
            OSError, EOFError: the worker died.
        """
        self.writer.write(packed(question, picture))
        await self.writer.drain()
        return await _receive(self.reader)

    def end(self) -> None:
        """Close the socket, which ends the process once it has answered what it was asked."""
        self.writer.close()

    def kill(self) -> None:
        """End the process at once."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.writer.close()


async def _receive(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    lengths = HEADER.unpack(await reader.readexactly(HEADER.size))
    text, status = [await reader.readexactly(length) for length in lengths]
    return int.from_bytes(status), text


async def start_worker(run: Path, **options: Any) -> Worker:
    """Start a process that opens a run, and wait until it has.

    Args:
        run: its folder.
        options: of `open_trained`.

    Raises:
        InputError: the run cannot be opened.
        NotStarted: the process was ended.
    """
    own, other = socket.socketpair()
    with other:
        process = await asyncio.create_subprocess_exec(
            sys.executable, *WORKER, str(other.fileno()), json.dumps({"run": str(run), **options}, default=str),
            stdin=asyncio.subprocess.DEVNULL, pass_fds=[other.fileno()], env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
    reader, writer = await asyncio.open_connection(sock=own)
    worker = Worker(process, reader, writer, {})
    try:
        status, text = await _receive(reader)
    except (OSError, EOFError):
        worker.kill()
        raise NotStarted(f"a worker ended with status {await process.wait()} while it opened {run}.") from None
    except BaseException:
        worker.kill()
        raise
    worker.about = json.loads(text)
    if status != 200:
        worker.end()
        await process.wait()
        raise InputError(worker.about["detail"])
    return worker


class Pool:
    """Workers that answer for whatever run lies in a place.

    Args:
        run: the run's folder, or a link to it. Whether another run has taken its place is looked for all the time.
        workers: how many processes.
        options: of `open_trained`.
    """

    def __init__(self, run: Path, workers: int = 2, **options: Any) -> None:
        self.run, self.size, self.options = Path(run), workers, options
        self.about: dict[str, Any] = {}
        self._state: object = None
        self._living: set[Worker] = set()
        self._idle: asyncio.Queue[Worker] = asyncio.Queue()
        self._waiting = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def ready(self) -> int:
        """How many workers hold the served run."""
        return sum(not worker.gone for worker in self._living)

    async def start(self) -> None:
        """Start the workers and wait until they are ready.

        Raises:
            InputError: the run cannot be opened.
        """
        open_run(self.run)  # says at once what is wrong with it
        state = self._look()
        try:
            self._take_over(state, await self._crew())
        except NotStarted as error:
            raise InputError(f"{error} Look into the lines above, and start the server again.") from None
        self._task(self._watch())

    async def close(self) -> None:
        """End all workers, those that still answer too."""
        for task in self._tasks:
            task.cancel()
        living, self._living = self._living, set()
        for worker in living:
            worker.kill()
            await worker.process.wait()

    async def ask(self, question: Mapping[str, Any], picture: Callable[[], bytes] | None = None) -> tuple[int, bytes]:
        """Status and JSON of an answer.

        Args:
            question: `name` and arguments, see `answers.ANSWERS`.
            picture: reads the picture, once there is a worker for it.

        Raises:
            Busy: no worker was free for too long, or too many questions wait already.
        """
        for _ in range(TRIES):
            worker = await self._next()
            answered = False
            try:
                async with asyncio.timeout(LONGEST_ANSWER):
                    found = await worker.ask(question, picture() if picture else b"")
                answered = True
                return found
            except (OSError, EOFError):  # a timeout too
                continue
            finally:
                if not answered:
                    worker.kill()  # what it answers now would be taken for the answer to the next question
                elif worker in self._living:
                    self._idle.put_nowait(worker)
                else:
                    worker.end()
        return 500, json.dumps({"detail": f"{TRIES} workers ended at this question: it is not asked again."}).encode()

    async def _next(self) -> Worker:
        """An idle worker, the first to ask first."""
        if self._waiting >= MOST_WAITING:
            raise Busy
        self._waiting += 1
        try:
            async with asyncio.timeout(LONGEST_WAIT):
                while True:
                    worker = await self._idle.get()
                    if worker in self._living and not worker.gone:
                        return worker
        except TimeoutError:
            raise Busy from None
        finally:
            self._waiting -= 1

    async def _crew(self) -> list[Worker]:
        """As many workers as are wanted, on one and the same run.

        Raises:
            InputError: the run cannot be opened.
            NotStarted: a worker ended, or the run was replaced while they opened it.
        """
        run = self.run.resolve()  # a link may come to point elsewhere meanwhile
        started = await asyncio.gather(
            *(start_worker(run, **self.options) for _ in range(self.size)), return_exceptions=True
        )
        crew = [each for each in started if isinstance(each, Worker)]
        failures = [each for each in started if isinstance(each, BaseException)]
        if not failures and any(worker.about != crew[0].about for worker in crew):
            failures = [NotStarted(f"{self.run} was replaced while it was opened.")]
        if failures:
            for worker in crew:
                worker.kill()
            raise failures[0]
        return crew

    def _take_over(self, state: object, crew: list[Worker]) -> None:
        """From now on this crew answers; the earlier one ends when it has answered what it was asked."""
        earlier, self._living = self._living, set(crew)
        self._state, self.about = state, crew[0].about
        while not self._idle.empty():
            self._idle.get_nowait().end()
        log.info("serving %s, run %s of %s, by %d workers", self.about["model"], self.about["run"],
                 self.about["finished"], len(crew))  # fmt: skip
        for worker in crew:
            self._idle.put_nowait(worker)
            self._task(self._keep(worker))
        del earlier  # the busy ones of it are ended by whoever waits for their answer

    def _look(self) -> object:
        """What says that the run is another: where it lies and when its record, which is written last, was written."""
        path = self.run.resolve() / "run.json"
        try:
            found = path.stat()
        except OSError:
            return None
        return path, found.st_ino, found.st_mtime_ns

    async def _watch(self) -> None:
        """Open each run that takes the place of the served one."""
        pause = LOOK_EVERY
        while True:
            await asyncio.sleep(pause)
            state = self._look()
            if state is None or state == self._state:
                continue
            try:
                self._take_over(state, await self._crew())
                pause = LOOK_EVERY
            except NotStarted as error:
                pause = min(2 * pause, LONGEST_PAUSE)
                log.warning("%s Tried again in %.0f seconds.", error, pause)
            except InputError as error:
                log.error("%s was replaced, and cannot be served: %s The earlier one goes on.", self.run, error)
                self._state = state

    async def _keep(self, worker: Worker) -> None:
        """Start another worker in the place of one that ends while its run is served."""
        code = await worker.process.wait()
        pause = 1.0
        while worker in self._living:
            log.warning("a worker ended with status %d: another starts", code)
            try:
                other = await start_worker(self.run.resolve(), **self.options)
            except (InputError, NotStarted) as error:
                log.error("%s Tried again in %.0f seconds.", error, pause)
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
                continue
            if worker not in self._living or other.about != worker.about:
                other.kill()  # another run has taken the place of this one, and has, or gets, workers of its own
                return
            self._living.remove(worker)
            self._living.add(other)
            self._idle.put_nowait(other)
            self._task(self._keep(other))

    def _task(self, coroutine: Any) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
