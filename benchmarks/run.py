"""Measure imgrec against its peers on generated data of Amazon Fashion's size, and write reports/benchmarks.md.

    python benchmarks/run.py --setup     # once: the peers' environments
    python benchmarks/run.py             # everything; about twenty minutes on two quiet cores
    python benchmarks/run.py --quick     # the two small rungs only

Every measurement is a process of its own, on the same files and with the same number of threads. What is compared is
measured in turn, round by round; tables give the best round. Each measurement's answer is kept as JSON in the cache, so
that a stopped suite goes on where it was, until the code changes; `--fresh` measures all again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data import RUNGS, Rung, prepare
from write import write_report

from imgrec_lib.files import default_cache, fingerprint, write_json

HERE = Path(__file__).resolve().parent
ENVIRONMENTS = {
    "peers": "requirements.txt",
    "recbole": "requirements-recbole.txt",
    "rectools": "requirements-rectools.txt",  # for agreement.py
}
TIME_LIMIT = 600


@dataclass(frozen=True)
class Measurement:
    """One measurement: `name` as benchmarks/ours.py or benchmarks/peers/measure.py knows it, run in `environment`."""

    environment: str
    name: str
    options: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        return " ".join([self.name, *self.options])


def ours(name: str, **options: Any) -> Measurement:
    return Measurement("ours", name, _options(options))


def peers(name: str, **options: Any) -> Measurement:
    return Measurement("recbole" if name.startswith("recbole") else "peers", name, _options(options))


def _options(options: dict[str, Any]) -> tuple[str, ...]:
    return tuple(text for key, value in options.items() for text in (f"--{key}", str(value)))


BATCHES = (256, 1024)
PRECISIONS = ("float32", "bfloat16")
COLLABORATIVE_BATCH = 2048  # RecBole's default

# Three configurations a side for the race to the same AUC, about the defaults of each; no test item has a part in it.
BPR_OURS = [
    ours("bpr-mf-curve", optimiser=optimiser, rate=rate, batch=batch, epochs=40, seconds=12)
    for optimiser, rate, batch in (("adam", 0.01, 2048), ("adam", 0.005, 1024), ("adagrad", 0.1, 1024))
]
WARP_OURS = [
    ours("warp-curve", optimiser="adagrad", rate=rate, batch=batch, epochs=40, seconds=12)
    for rate, batch in ((0.05, 256), (0.05, 1024), (0.1, 1024))
]
IMPLICIT = [
    peers("implicit-curve", rate=rate, l2=l2, epochs=5, seconds=12)
    for rate, l2 in ((0.05, 0.01), (0.1, 0.01), (0.1, 0.05))
]
LIGHTFM_BPR, LIGHTFM_WARP = (
    [peers(f"lightfm-{loss}-curve", rate=rate, seconds=12) for rate in (0.01, 0.02, 0.05)] for loss in ("bpr", "warp")
)

GROUPS: dict[str, tuple[int, Sequence[Measurement]]] = {
    "machine": (1, [ours("machine")]),
    "evaluation": (
        1,
        [
            ours("evaluation", repeats=6),
            *(peers(f"{name}-evaluation", users=500) for name in ("cornac", "lightfm", "recbole")),
        ],
    ),
    "memory and start-up": (1, [ours("evaluation-memory"), ours("training-memory"), ours("start-up")]),
    "visual models": (
        2,
        [
            m
            for batch in BATCHES
            for m in (
                *(
                    ours(f"{model}-rate", batch=batch, precision=p)
                    for p in PRECISIONS
                    for model in ("vbpr", "imgrec-ft")
                ),
                peers("cornac-vbpr", batch=batch),
            )
        ],
    ),
    "the scripts' loop": (1, [ours("scripts-loop"), ours("sampled-evaluation")]),
    "collaborative models": (
        2,
        [
            ours("bpr-mf-rate", batch=COLLABORATIVE_BATCH),
            peers("cornac-bpr"),
            peers("recbole-bpr", batch=COLLABORATIVE_BATCH),
            ours("fm-id-rate", batch=COLLABORATIVE_BATCH),
            peers("recbole-fm", batch=2 * COLLABORATIVE_BATCH),  # RecBole counts the negatives of a pointwise model
        ],
    ),
    "to the same AUC": (
        1,
        [
            m
            for all_sides in zip(BPR_OURS, IMPLICIT, LIGHTFM_BPR, WARP_OURS, LIGHTFM_WARP, strict=True)
            for m in all_sides
        ],
    ),
    "profile": (
        1,
        [ours(f"{name}-profile", batch=1024) for name in ("bpr-mf", "warp", "vbpr", "imgrec-ft")],
    ),
    "neighbours": (1, [ours("neighbours")]),
}
"""By name: rounds at the largest rung (one at the others), and what is measured in turn."""

LARGEST_ONLY = {"machine", "profile", "neighbours"}
RACE_RUNGS = {"1/16", "1"}  # a race to an AUC takes minutes


def rungs_of(group: str, rungs: Sequence[Rung]) -> list[Rung]:
    if group in LARGEST_ONLY:
        return [rungs[-1]]
    return [rung for rung in rungs if group != "to the same AUC" or rung.name in RACE_RUNGS]


class Suite:
    """Runs measurements and keeps their answers."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.cache = Path(options.cache) / "benchmarks"
        sources = [*HERE.glob("[!rw]*.py"), *HERE.glob("peers/*"), *(HERE.parent / "imgrec_lib").rglob("*.py")]
        self.code = fingerprint(
            {str(p.relative_to(HERE.parent)): p.read_text() for p in sorted(sources) if p.is_file()}
        )

    def python(self, environment: str) -> Path:
        if environment == "ours":
            return Path(sys.executable)
        return self.cache / "environments" / environment / "bin" / "python"

    def set_up(self) -> None:
        for environment, requirements in ENVIRONMENTS.items():
            python = self.python(environment)
            if not python.exists():
                subprocess.run([sys.executable, "-m", "venv", str(python.parent.parent)], check=True)
            subprocess.run([str(python), "-m", "pip", "install", "-r", str(HERE / "peers" / requirements)], check=True)

    def measure(self, rung: Rung, measurement: Measurement, number: int) -> dict[str, Any]:
        """The answer to one measurement, from the cache where the code has not changed; or why there is none."""
        o = self.options
        key = fingerprint(asdict(measurement), rung.name, number, o.threads, o.device, self.code)
        path = self.cache / "answers" / f"{key}.json"
        if path.exists() and not o.fresh:
            return json.loads(path.read_text())
        python = self.python(measurement.environment)
        if not python.exists():
            return {"failed": "not installed (`python benchmarks/run.py --setup`)"}
        script = HERE / ("ours.py" if measurement.environment == "ours" else "peers/measure.py")
        folder = prepare(rung, self.cache).folder
        command = [str(python), str(script), measurement.name, str(folder), *measurement.options]
        command += ["--threads", str(o.threads)] + (["--device", o.device] if script.name == "ours.py" else [])
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(o.threads))
        # NumPy's OpenBLAS waits for more work by spinning: after a validation, which is outside of everyone's time, it
        # would keep a core from what is measured.
        threads["OPENBLAS_THREAD_TIMEOUT"] = "4"
        path_of_ours = {"PYTHONPATH": str(HERE.parent)} if script.name == "ours.py" else {"PYTHONPATH": ""}
        began = time.perf_counter()
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=TIME_LIMIT, env=os.environ | threads | path_of_ours
            )
        except subprocess.TimeoutExpired:
            return {"failed": f"took longer than {TIME_LIMIT} s"}
        lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
        if not lines:
            return {"failed": (done.stderr.strip().splitlines() or ["no answer"])[-1]}
        result = json.loads(lines[-1].removeprefix("RESULT ")) | {"process_seconds": time.perf_counter() - began}
        write_json(path, result)
        return result

    def run(self, rungs: Sequence[Rung]) -> list[dict[str, Any]]:
        """All answers, one record each."""
        records = []
        for group, (rounds, measurements) in GROUPS.items():
            if self.options.only and group not in self.options.only:
                continue
            for rung in rungs_of(group, rungs):
                for number in range(rounds if rung is rungs[-1] else 1):
                    for measurement in measurements:
                        began = time.perf_counter()
                        result = self.measure(rung, measurement, number)
                        note = result.get("failed") or f"{time.perf_counter() - began:.1f} s"
                        print(f"{group}, rung {rung.name}, round {number + 1}: {measurement.label}: {note}", flush=True)
                        records.append(
                            {"group": group, "rung": rung.name, "round": number, "name": measurement.name,
                             "options": dict(zip(measurement.options[::2], measurement.options[1::2], strict=True)),
                             "result": result}
                        )  # fmt: skip
        return records


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--setup", action="store_true", help="install the peers into environments of their own, and end"
    )
    parser.add_argument("--quick", action="store_true", help="the two small rungs only")
    parser.add_argument("--only", nargs="*", choices=GROUPS, help="some groups; the report then lacks the others")
    parser.add_argument("--fresh", action="store_true", help="measure again what was measured before")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--device", default="cpu", help="where our models run; the peers run on the CPU")
    parser.add_argument("--cache", type=Path, default=default_cache())
    parser.add_argument("--out", type=Path, default=HERE.parent / "reports" / "benchmarks.md")
    parser.add_argument("--plot", type=Path, default=HERE.parent / "docs" / "benchmarks.png")
    options = parser.parse_args()
    suite = Suite(options)
    if options.setup:
        suite.set_up()
        return
    rungs = list(RUNGS.values())[: 2 if options.quick else None]
    load = [os.getloadavg()[0]]
    began = time.perf_counter()
    records = suite.run(rungs)
    load.append(os.getloadavg()[0])
    write_report(records, rungs, options, load, time.perf_counter() - began)
    print(f"written: {options.out}")


if __name__ == "__main__":
    main()
