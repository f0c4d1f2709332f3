"""Kill a server's workers and replace its run while it is asked, and see that no request fails.

    python robustness/serve.py                # about a minute on two cores

`imgrec serve` answers 50 requests a second from two workers. Meanwhile, at seeded random moments, workers are killed
(SIGKILL), both at once too, and the served run is replaced by others, and by one that cannot be opened. Every answer
must be the library's for one of the runs that were served, and in the end for the last one. When the server itself is
killed, no process of it may be left.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil

sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))

from serving import TOKEN, Load, server

from imgrec_lib import Request, train_run
from imgrec_lib.serving import open_trained
from imgrec_lib.serving.answers import answer


def small_run(folder: Path, seed: int) -> None:
    options = {"n_users": 300, "n_items": 200, "image_size": 32}
    request = Request(
        "bpr-mf", parameters={"epochs": 2, "factors": 8}, seed=seed, dataset="wardrobe", dataset_options=options
    )
    train_run(request.load(progress=False)[0], request, folder, progress=False)


def put_in_place(run: Path, place: Path) -> None:
    """Let the link lead to the run, in one step."""
    following = place.with_suffix(".next")
    following.symlink_to(run)
    os.replace(following, place)


def kill_workers(server_pid: int, number: int, chance: random.Random) -> int:
    workers = psutil.Process(server_pid).children()
    chosen = chance.sample(workers, min(number, len(workers)))
    for worker in chosen:
        worker.kill()
    return len(chosen)


def wait_for(port: int, run: str) -> None:
    """Until a run is served, for two minutes at most."""
    for _ in range(240):
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("GET", "/model", headers={"Authorization": f"Bearer {TOKEN}"})
        if json.load(connection.getresponse())["run"] == run:
            return
        time.sleep(0.5)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--rate", type=float, default=50.0, help="requests a second")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        runs = [folder / f"run-{seed}" for seed in range(3)]
        for seed, run in enumerate(runs):
            small_run(run, seed)
        broken = folder / "broken"
        shutil.copytree(runs[0], broken)
        (broken / "model.safetensors").write_bytes(b"no weights")
        opened = [open_trained(run, progress=False) for run in runs]
        bodies = [{"user": str(user), "k": 10} for user in opened[0].dataset.user_ids[:40]]
        expected = [[answer(trained, "recommend", body) for trained in opened] for body in bodies]
        place = folder / "served"
        put_in_place(runs[0], place)
        killed = 0
        with server(place, workers=2) as (process, port):
            load = Load(port, bodies, keep=True)
            asking = threading.Thread(target=load.run, args=(options.rate, options.seconds, options.seed))
            asking.start()
            following = [runs[1], broken, runs[2]]
            pause = options.seconds / 8
            for step in range(7):
                time.sleep(pause * chance.uniform(0.7, 1.0))
                if step in (1, 3, 5):
                    put_in_place(following[step // 2], place)
                else:
                    killed += kill_workers(process.pid, 2 if step == 4 else 1, chance)
            asking.join()
            wait_for(port, runs[2].name)
            wrong = [
                body
                for number, body in enumerate(bodies)
                for found in load.answers.get(number, ())
                if json.loads(found) not in expected[number]
            ]
            last = Load(port, bodies, keep=True)
            last.run(options.rate, len(bodies) / options.rate, options.seed)
            stale = [
                number
                for number, found in last.answers.items()
                if any(json.loads(each) != expected[number][2] for each in found)
            ]
            of_the_server = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
            process.kill()
            _, left = psutil.wait_procs(of_the_server, timeout=60)
    found = {
        "requests": len(load.milliseconds) + len(load.failures),
        "failed": load.failures[:5],
        "wrong": wrong[:5],
        "stale": stale[:5],
        "workers_killed": killed,
        "runs_replaced": 3,
        "processes_left": [" ".join(each.cmdline()[:4]) for each in left],
        "p99_ms": round(float(np.percentile(load.milliseconds, 99)), 1),
        "largest_ms": round(max(load.milliseconds), 1),
    }
    print(json.dumps(found, indent=2))
    return int(bool(load.failures or last.failures or wrong or stale or left))


if __name__ == "__main__":
    sys.exit(main())
