"""The server that forks kernels: what a notebook finds in one, and what is left when one of the processes is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
import psutil
import pytest

from imgrec_lib.errors import InputError
from imgrec_lib.kernel_server import KERNEL, KernelServer
from imgrec_lib.notebooks import notebook_path, run_notebook

pytestmark = pytest.mark.skipif(not KernelServer.is_supported(), reason="kernels are forked on Linux alone")

WHAT_IT_FINDS = """
import json, os, random, sys, threading
import matplotlib, numpy, torch
from threadpoolctl import threadpool_info
print(json.dumps({
    "pid": os.getpid(), "parent": os.getppid(), "drawn": [random.random(), numpy.random.random(), torch.rand(1).item()],
    "threads": [torch.get_num_threads(), *{pool["num_threads"] for pool in threadpool_info()}],
    "backend": matplotlib.get_backend(), "main": __name__, "mine": os.environ.get("MINE"), "argv": sys.argv[0],
    "malloc": os.environ.get("MALLOC_TRIM_THRESHOLD_"), "deterministic": torch.get_deterministic_debug_mode(),
}))
"""


@pytest.fixture(scope="module")
def server() -> Iterator[KernelServer]:
    server = KernelServer()
    yield server
    server.stop()


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The notebook "short": what is written to this file is its one cell."""
    monkeypatch.setattr("imgrec_lib.notebooks.notebooks_folder", lambda: tmp_path)
    return tmp_path / "short.ipynb"


def run(place: Path, cell: str, server: KernelServer | None) -> str:
    """Execute a cell; what it printed."""
    notebook = nbformat.read(REAL, as_version=4)
    parameters = next(each for each in notebook.cells if each.cell_type == "code")
    notebook.cells = [parameters, nbformat.v4.new_code_cell(cell)]
    nbformat.write(notebook, place)
    output = run_notebook("short", {}, place.parent / "out" / "n.ipynb", progress=False, server=server)
    return "".join(each.get("text", "") for each in nbformat.read(output, as_version=4).cells[-1].outputs)


REAL = notebook_path("01_data")


@pytest.mark.slow
def test_a_forked_kernel_is_like_a_fresh_one(code: Path, server: KernelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = "%matplotlib inline\n" + WHAT_IT_FINDS
    found = []
    for threads, mine, of in [("1", "a", server), ("2", "b", server), ("2", "b", None)]:
        for library in ("OMP", "MKL", "OPENBLAS"):  # as a place of a matrix sets them
            monkeypatch.setenv(f"{library}_NUM_THREADS", threads)
        monkeypatch.setenv("MINE", mine)
        found.append(json.loads(run(code, cell, of)))
    first, second, fresh = found
    assert first["parent"] == second["parent"] != fresh["parent"] and first["pid"] != second["pid"]
    assert [set(each.pop("threads")) for each in found] == [{1}, {2}, {2}]
    assert [each.pop("mine") for each in found] == ["a", "b", "b"]
    drawn = [each.pop("drawn") for each in found]  # each kernel has streams of its own, as each process has
    assert all(len(set(of_one_library)) == 3 for of_one_library in zip(*drawn, strict=True))
    for each in found:
        del each["pid"], each["parent"], each["argv"]
    assert first == second == fresh


@pytest.mark.slow
def test_a_forked_kernel_says_how_it_ended(code: Path, server: KernelServer) -> None:
    for cell, sentence in [
        ("import os\nos.kill(os.getpid(), 9)", "its process was killed"),
        (
            "import os\nos.write(2, b'no such library\\n'); os._exit(7)",
            "ended with status 7, and wrote at last: no such",
        ),
    ]:
        with pytest.raises(InputError, match=sentence):
            run(code, cell, server)
    assert run(code, "print('well')", server).strip() == "well"


@pytest.mark.slow
def test_a_server_that_is_killed_takes_its_kernel_along_and_is_started_again(code: Path, server: KernelServer) -> None:
    pid = code.parent / "pid"
    holding = "sum(range(10 ** 12))"  # a loop that holds Python's lock, in which no thread of its own could look
    cell = f"import os, pathlib\npathlib.Path({str(pid)!r}).write_text(str(os.getpid()))\nos.kill(os.getppid(), 9)\n"
    with pytest.raises(InputError, match="its process was killed"):
        run(code, cell + holding, server)
    gone(int(pid.read_text()))
    assert run(code, "print('well')", server).strip() == "well"


@pytest.mark.slow
def test_kernels_go_with_the_process_that_asked_for_them(tmp_path: Path) -> None:
    """Killed while a cell holds Python's lock, as the system kills a worker."""
    script = tmp_path / "ask.py"
    script.write_text(
        "import os, sys, time\nfrom pathlib import Path\nfrom imgrec_lib.kernel_server import KernelServer\n"
        "kernel = KernelServer().launch(sys.argv[1], dict(os.environ), None, Path(sys.argv[2]))\n"
        "print(kernel.pid, flush=True)\ntime.sleep(600)\n"
    )
    asking = psutil.Popen(
        [sys.executable, str(script), str(tmp_path / "kernel.json"), str(tmp_path / "errors")],
        stdout=subprocess.PIPE,
    )
    kernel = int(asking.stdout.readline())
    server = psutil.Process(kernel).parent()
    assert server is not None and server.ppid() == asking.pid
    while psutil.Process(kernel).name() != KERNEL.decode():
        time.sleep(0.01)
    os.kill(kernel, signal.SIGSTOP)  # one that can do nothing by itself
    asking.kill()
    asking.wait()
    for pid in (server.pid, kernel):
        gone(pid)


def gone(pid: int) -> None:
    """Wait until there is no such process, or nothing but its exit status."""
    end = time.monotonic() + 20
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < end
        time.sleep(0.02)
