"""Workers that die, hang or hold a run that was replaced: no question is lost, and none is answered by the wrong one.

The workers are processes that know the messages alone, so that many can be started.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import psutil
import pytest

from imgrec_lib import InputError
from imgrec_lib.serving import pool as pools
from imgrec_lib.serving.pool import Busy, Pool

WORKER = """
import json, os, socket, struct, sys, time
channel = socket.socket(fileno=int(sys.argv[1]))
stream = channel.makefile("rb")
def send(status, content):
    text = json.dumps(content).encode()
    channel.sendall(struct.pack(">II", len(text), 2) + text + status.to_bytes(2, "big"))
about = json.load(open(json.loads(sys.argv[2])["run"] + "/run.json"))
if "slow" in about:
    time.sleep(0.3)
    if not os.path.exists(json.loads(sys.argv[2])["run"] + "/tried"):
        open(json.loads(sys.argv[2])["run"] + "/tried", "w").close()
        os._exit(9)
if "broken" in about:
    send(422, {"detail": "this run is broken."})
    sys.exit()
send(200, about)
while header := stream.read(8):
    lengths = struct.unpack(">II", header)
    question, picture = json.loads(stream.read(lengths[0])), stream.read(lengths[1])
    if question["name"] == "die":
        os._exit(3)
    time.sleep(question.get("seconds", 0))
    send(200, {"pid": os.getpid(), "run": about["run"], "picture": len(picture)})
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A link to a run, as far as these workers can tell."""
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    monkeypatch.setattr(pools, "WORKER", (str(script),))
    monkeypatch.setattr(pools, "open_run", lambda run: None)
    monkeypatch.setattr(pools, "LOOK_EVERY", 0.05)
    replace(tmp_path / "run", "first")
    return tmp_path / "run"


def replace(place: Path, name: str, **content: Any) -> None:
    """Let the link lead to another run, in one step."""
    folder = place.parent / name
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"model": "Model", "run": name, "finished": "now", **content}))
    (place.parent / "next").symlink_to(folder)
    os.replace(place.parent / "next", place)


def with_pool(place: Path, workers: int, work: Callable[[Pool], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        pool = Pool(place, workers)
        await pool.start()
        try:
            await asyncio.wait_for(work(pool), 30)
        finally:
            living = [psutil.Process(worker.process.pid) for worker in pool._living if not worker.gone]
            await pool.close()
        assert not psutil.wait_procs(living, timeout=5)[1]

    asyncio.run(main())


async def ask(pool: Pool, **question: Any) -> dict[str, Any]:
    status, text = await pool.ask({"name": "ask", **question})
    assert status == 200, text
    return json.loads(text)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


def test_a_question_whose_worker_is_killed_is_answered_by_another(place: Path) -> None:
    async def work(pool: Pool) -> None:
        first = {(await ask(pool))["pid"] for _ in range(4)}
        assert len(first) == 2
        questions = [asyncio.create_task(ask(pool, seconds=0.5)) for _ in range(2)]
        await asyncio.sleep(0.2)
        for pid in first:  # both in the middle of an answer: the questions wait for new workers
            os.kill(pid, signal.SIGKILL)
        answers = {answer["pid"] for answer in await asyncio.gather(*questions)}
        assert not answers & first
        await until(lambda: pool.ready == 2)
        assert not {(await ask(pool))["pid"] for _ in range(4)} & first

    with_pool(place, 2, work)


def test_idle_workers_that_were_killed_are_asked_nothing(place: Path) -> None:
    async def work(pool: Pool) -> None:
        for _ in range(3):
            for worker in [worker for worker in pool._living if not worker.gone]:
                worker.process.send_signal(signal.SIGKILL)
            await ask(pool)

    with_pool(place, 2, work)


def test_a_question_that_kills_is_not_asked_for_ever(place: Path) -> None:
    async def work(pool: Pool) -> None:
        status, text = await pool.ask({"name": "die"})
        assert status == 500 and json.loads(text)["detail"].startswith("3 workers ended at this question")
        await ask(pool)

    with_pool(place, 2, work)


def test_a_worker_that_hangs_is_ended(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "LONGEST_ANSWER", 0.2)

    async def work(pool: Pool) -> None:
        (pid,) = {(await ask(pool))["pid"]}
        status, _ = await pool.ask({"name": "ask", "seconds": 60})
        assert status == 500 and not psutil.pid_exists(pid)
        assert (await ask(pool))["pid"] != pid

    with_pool(place, 1, work)


def test_a_run_takes_over_at_once_and_no_question_fails(place: Path) -> None:
    """Eight ask all the time; whoever asks after one was answered by the new run is answered by it too."""

    async def work(pool: Pool) -> None:
        answers: list[tuple[float, float, str]] = []
        done = False

        async def keep_asking() -> None:
            while not done:
                asked = time.perf_counter()
                answer = await ask(pool, seconds=0.002)
                answers.append((asked, time.perf_counter(), answer["run"]))

        askers = [asyncio.create_task(keep_asking()) for _ in range(8)]
        earlier = [worker.process.pid for worker in pool._living]
        await until(lambda: len(answers) > 50)
        replace(place, "second")
        await until(lambda: pool.about["run"] == "second")
        before = len(answers)
        await until(lambda: len(answers) > before + 50)
        done = True
        await asyncio.gather(*askers)
        first_new = min(answered for _, answered, run in answers if run == "second")
        assert {run for asked, _, run in answers if asked > first_new} == {"second"}
        assert {run for _, _, run in answers} == {"first", "second"}
        await until(lambda: not any(psutil.pid_exists(pid) for pid in earlier))

    with_pool(place, 2, work)


def test_a_run_that_cannot_be_opened_takes_nothing_over(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def work(pool: Pool) -> None:
        replace(place, "broken", broken=True)
        await until(lambda: "cannot be served: this run is broken. The earlier one goes on." in caplog.text)
        assert (await ask(pool))["run"] == "first"
        replace(place, "third")
        await until(lambda: pool.about["run"] == "third")
        assert (await ask(pool))["run"] == "third"

    with_pool(place, 1, work)


def test_a_worker_that_is_killed_while_it_opens_the_next_run_only_delays_it(place: Path) -> None:
    async def work(pool: Pool) -> None:
        replace(place, "second", slow=True)
        await until(lambda: pool.about["run"] == "second")
        assert (await ask(pool))["run"] == "second"

    with_pool(place, 1, work)


def test_a_run_that_cannot_be_opened_is_said_at_the_start(place: Path) -> None:
    replace(place, "broken", broken=True)
    with pytest.raises(InputError, match=r"^this run is broken\.$"):
        asyncio.run(Pool(place, 2).start())


def test_too_many_questions_are_refused_and_pictures_are_read_by_who_is_asked(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "MOST_WAITING", 1)
    monkeypatch.setattr(pools, "LONGEST_WAIT", 0.3)
    read: list[float] = []

    def picture() -> bytes:
        read.append(time.perf_counter())
        return bytes(200_000)

    async def work(pool: Pool) -> None:
        busy = asyncio.create_task(ask(pool, seconds=0.6))
        await asyncio.sleep(0.05)
        waiting = asyncio.create_task(pool.ask({"name": "ask"}, picture))
        await asyncio.sleep(0.05)
        for question in (pool.ask({"name": "ask"}), waiting):  # the one at once, the other when it has waited too long
            with pytest.raises(Busy):
                await question
        assert not read
        await busy
        assert json.loads((await pool.ask({"name": "ask"}, picture))[1])["picture"] == 200_000

    with_pool(place, 1, work)
