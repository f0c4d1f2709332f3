"""How fast a server answers: 10 of 166,270 items for a user, beside a load of requests, on one core.

    python benchmarks/serving.py
    python benchmarks/serving.py --run runs/ft --rate 100 --seconds 60

Without `--run`, BPR-MF with 64 factors is trained for an epoch on random purchases in a catalogue of 166,270 items:
what is timed does not depend on what was learnt. The server, its worker included, may use one core, and this script
another. Requests come at random moments (a Poisson process), whether or not earlier ones were answered, and each is
timed from the moment at which it was due: what waits in a queue counts, and so does a delay of this script, which it
also says. The processor time of a request is that of all of the server's processes. Where others use the machine,
`chrt --fifo 1` before the command says how it would be without them. docs/serving.md says what was measured.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

ITEMS = 166_270
TOKEN = "benchmark"
CLIENTS = 32
"""Connections, each with a thread."""


@contextmanager
def server(run: Path, workers: int = 1, cores: set[int] | None = None) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """`imgrec serve` on a free port, ready; the process and the port."""
    own = os.sched_getaffinity(0) if cores else set()
    if cores:
        os.sched_setaffinity(0, cores)  # which processes hand on
    command = [sys.executable, "-c", "from imgrec_lib.cli import main; main()", "serve", str(run), "--port", "0"]
    with subprocess.Popen(
        [*command, "--workers", str(workers)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"IMGREC_TOKEN": TOKEN},
    ) as process:
        if cores:
            os.sched_setaffinity(0, own)
        try:
            assert process.stdout is not None
            found = re.search(r":(\d+)/docs", process.stdout.readline())
            if found is None:
                raise SystemExit("the server did not start")
            yield process, int(found[1])
        finally:
            process.terminate()


@dataclass
class Load:
    """Requests at random moments.

    Attributes:
        port: of the server.
        bodies: what is asked, one after another and again.
        milliseconds: from the moment when each request was due to its answer, in the order of the answers.
        late: milliseconds from the moment when each request was due to its being sent.
        failures: what went wrong, in words.
        answers: the different answers to each body, where `keep` says so.
    """

    port: int
    bodies: list[dict[str, Any]]
    keep: bool = False
    milliseconds: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    answers: dict[int, set[str]] = field(default_factory=dict)
    _local: threading.local = field(default_factory=threading.local)

    def run(self, rate: float, seconds: float, seed: int = 0) -> None:
        """Ask `rate` times a second, for so long."""
        due = np.random.default_rng(seed).exponential(1 / rate, int(rate * seconds)).cumsum()
        began = time.perf_counter()
        with ThreadPoolExecutor(CLIENTS) as clients:
            for number, moment in enumerate(due):
                time.sleep(max(0.0, began + moment - time.perf_counter()))
                clients.submit(self._ask, number % len(self.bodies), began + moment)

    def _ask(self, number: int, due: float) -> None:
        self.late.append(1e3 * (time.perf_counter() - due))
        try:
            connection = self._local.__dict__.setdefault(
                "connection", http.client.HTTPConnection("127.0.0.1", self.port)
            )
            headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
            connection.request("POST", "/recommend", json.dumps(self.bodies[number]), headers)
            response = connection.getresponse()
            text = response.read().decode()
            if response.status != 200:
                self.failures.append(f"{response.status}: {text}")
        except (OSError, http.client.HTTPException) as error:
            self._local.__dict__.pop("connection", None)
            self.failures.append(f"{type(error).__name__}: {error}")
        else:
            self.milliseconds.append(1e3 * (time.perf_counter() - due))
            if self.keep:
                self.answers.setdefault(number, set()).add(text)


def processor_seconds(process: int) -> float:
    """Processor time of a process and its children so far."""
    first = psutil.Process(process)
    return sum(sum(each.cpu_times()[:2]) for each in (first, *first.children(recursive=True)))


def random_run(folder: Path, users: int, items: int, factors: int) -> Path:
    """BPR-MF on random purchases."""
    from imgrec_lib import Request, train_run

    shop = folder / "shop"
    shop.mkdir()
    rng = np.random.default_rng(0)
    rows = [f"u{user},{item:010d}" for user in range(users) for item in rng.choice(items, 8, replace=False)]
    (shop / "interactions.csv").write_text("user,item\n" + "\n".join(rows) + "\n")
    names = (f"{item:010d},garment number {item}\n" for item in range(items))
    (shop / "items.csv").write_text("item,name\n" + "".join(names))
    request = Request("bpr-mf", parameters={"factors": factors, "epochs": 1}, dataset="table", root=str(shop))
    train_run(request.load(progress=False)[0], request, folder / "run", progress=False)
    return folder / "run"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a finished run")
    parser.add_argument("--rate", type=float, default=50.0, help="requests a second")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--users", type=int, default=2_000)
    parser.add_argument("--items", type=int, default=ITEMS)
    parser.add_argument("--factors", type=int, default=64)
    parser.add_argument("-k", type=int, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = options.run or random_run(Path(folder), options.users, options.items, options.factors)
        from imgrec_lib.runs import load_inputs, open_run

        ids = load_inputs(open_run(run), progress=False)[0].user_ids
        cores = sorted(os.sched_getaffinity(0))
        with server(run, cores={cores[-1]}) as (process, port):
            if len(cores) > 1:
                os.sched_setaffinity(0, set(cores[:-1]))
            some = np.random.default_rng(1).choice(ids, min(500, len(ids)), replace=False)
            load = Load(port, [{"user": str(user), "k": options.k} for user in some])
            load.run(options.rate, 2.0)  # connections, and what is made once
            load.milliseconds.clear()
            load.late.clear()
            spent = processor_seconds(process.pid)
            load.run(options.rate, options.seconds, seed=2)
            spent = processor_seconds(process.pid) - spent
    found = np.percentile(load.milliseconds, [50, 95, 99, 100])
    print(
        json.dumps(
            {
                "requests": len(load.milliseconds),
                "failures": load.failures[:5],
                "rate": options.rate,
                **{
                    name: round(float(v), 1)
                    for name, v in zip(("median_ms", "p95_ms", "p99_ms", "largest_ms"), found, strict=True)
                },
                "sent_late_p99_ms": round(float(np.percentile(load.late, 99)), 1),
                "processor_ms_a_request": round(1e3 * spent / len(load.milliseconds), 2),
                "load_of_the_machine": os.getloadavg()[0],
                "cores_of_the_machine": len(cores),
                "machine": platform.machine(),
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
