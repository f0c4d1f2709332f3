"""Killed, starved and crowded: a few of the faults of `robustness/`, and proof that it would notice a failure."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from paths import ROOT

ENVIRONMENT = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}

# Faults need a process that has no threads yet, which that of the tests is not.
LINUX = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="descendants are found in Linux's /proc")


def run(*arguments: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, cwd=ROOT, timeout=timeout)


@pytest.mark.slow
@LINUX
def test_a_few_faults_are_survived() -> None:
    result = run("robustness/crash.py", "--quick")
    assert result.returncode == 0, result.stdout + result.stderr
    lines = result.stdout.splitlines()
    assert len(lines) >= 8 and all(line.split("/")[0] == line.split("/")[1].split()[0] for line in lines)
    for stage in ("image preparation", "evaluation"):
        assert sum("killed" in line and stage in line and not line.startswith("0") for line in lines) >= 2, stage


FRAGILE = """
import random, tempfile, time
from pathlib import Path
from robustness import crash

def work(inputs, place, begin):
    place.mkdir(exist_ok=True)
    begin()
    path = place / "result.txt"
    if not path.exists():  # written where it will stay: a kill leaves a part, which is then taken for the whole
        with open(path, "w") as file:
            for line in range(50):
                file.write(f"{line}\\n")
                file.flush()
                time.sleep(0.01)

base = Path(tempfile.mkdtemp())
stage = crash.Stage("fragile", work)
reference = crash.undisturbed(stage, base, base / "reference")
tally = crash.kill_at_random(stage, base, reference, base, 3, random.Random(0))
assert tally.tried >= 3 and tally.survived == 0, tally
assert "result.txt is partial" in tally.problems and "result.txt differs after the second run" in tally.problems
"""


@pytest.mark.slow
@LINUX
def test_a_writer_that_leaves_a_part_is_found_out() -> None:
    result = run("-c", FRAGILE)
    assert result.returncode == 0, result.stdout + result.stderr


FUZZED = pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="Atheris has wheels for Linux alone")


@pytest.mark.slow
@FUZZED
@pytest.mark.parametrize(("target", "runs"), [("published", 1000), ("interactions", 200)])
def test_fuzzing_finds_nothing(target: str, runs: int, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "robustness" / "fuzz.py"), target, f"--runs={runs}", "--seed=1"]
    result = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, cwd=tmp_path, timeout=300)
    assert result.returncode == 0, result.stderr[-3000:]
    assert f"Done {runs} runs" in result.stderr and list(tmp_path.iterdir()) == []


@pytest.mark.slow
@FUZZED
def test_fuzzing_would_find_a_reader_that_fails(tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv = ['fuzz', 'interactions', '--runs=20']\n"
        "from robustness import fuzz\n"
        "fuzz.TARGETS['interactions'] = (lambda path: path.read_text(encoding='ascii'), 'input.csv')\n"
        "fuzz.main()"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, cwd=tmp_path, timeout=300
    )
    assert result.returncode != 0 and "UnicodeDecodeError" in result.stdout + result.stderr
    assert [path.name.split("-")[0] for path in tmp_path.iterdir()] == ["crash"]
