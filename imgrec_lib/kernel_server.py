"""A process that has imported what notebooks need, and forks their kernels: a matrix pays for its imports once.

On Linux each place of a matrix where runs are executed keeps one, and has one kernel of it at a time. Elsewhere a fork
of a process that has loaded its libraries is not safe, and every kernel imports for itself.

The server imports and reads source, no data: no pool of threads has started in it, of which a fork would have nothing
but the locks, so that a kernel finds what a fresh process would.

Nobody outlives anybody: the system kills the server when the thread that started it is gone, and a kernel when its
server is, however they ended.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from imgrec_lib.files import default_cache

IMPORTED = (
    "ipykernel.kernelapp",
    "ipykernel.zmqshell",
    "matplotlib.pyplot",
    "matplotlib_inline.backend_inline",
    "pyarrow.parquet",
    "torch._dynamo",  # which PyTorch imports at the first optimizer
    "PIL.JpegImagePlugin",
    "imgrec_lib.data.compiled",
    "imgrec_lib.data.split",
    "imgrec_lib.evaluation",
    "imgrec_lib.figures",
    "imgrec_lib.gallery",
    "imgrec_lib.report",
    "imgrec_lib.results",
    "imgrec_lib.runs",
    "imgrec_lib.runs.train",
    "imgrec_lib.evaluation.compiled",
    "imgrec_lib.training.compiled",
)
"""What the notebooks import, and what these import when they are first used."""

PR_SET_PDEATHSIG, PR_SET_NAME = 1, 15
"""Of prctl(2): the signal that a process gets when its parent is gone, and what `top` calls it."""

MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(32 * 2**20), "MALLOC_TRIM_THRESHOLD_": str(256 * 2**20)}
"""Environment by which glibc keeps memory that is freed, up to these bytes, for the next step of training, which would
else get it page by page from the system: a fifth of the time of a small run."""


KERNEL = b"imgrec-kernel"
"""What the system calls a kernel's process."""

NUMBER = struct.Struct("q")
"""How the server says a process or an exit status."""


class KernelServer:
    """Forks kernels; its process is started at the first one, and anew where it was killed."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._kernel: ForkedKernel | None = None
        self._socket = socket.socket()

    @staticmethod
    def is_supported() -> bool:
        """Whether kernels are forked on this system."""
        return sys.platform == "linux"

    def launch(self, connection_file: str, env: Mapping[str, str], folder: str | None, errors: Path) -> ForkedKernel:
        """Fork a kernel.

        Args:
            connection_file: says by which sockets it is reached.
            env: all of its environment.
            folder: its working directory; None for this process's.
            errors: the file for its standard error.
        """
        if self._process is None or self._process.poll() is not None or self._busy():
            self.start()
        assert self._process is not None
        request = {
            "arguments": ["-f", connection_file],
            "env": dict(env),
            "folder": folder or os.getcwd(),
            "errors": str(errors),
        }
        with suppress(ConnectionError):  # the server has just ended: the kernel says so when it is asked
            self._socket.sendall(json.dumps(request).encode() + b"\n")
        self._kernel = ForkedKernel(self._socket)
        return self._kernel

    def stop(self) -> None:
        """End the server, and the kernel that runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._socket.close()
            self._process = None

    def _busy(self) -> bool:
        return self._kernel is not None and self._kernel.poll() is None

    def start(self) -> None:
        """Start the process, which is ready seconds later; the first kernel waits for it."""
        self.stop()
        env = MEMORY | {"MPLCONFIGDIR": str(default_cache() / "matplotlib")} | os.environ
        self._socket, other = socket.socketpair()
        with other:
            command = [sys.executable, "-m", "imgrec_lib.kernel_server", str(other.fileno())]
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, env=env, pass_fds=[other.fileno()], start_new_session=True
            )


class ForkedKernel:
    """A forked kernel, in the words of `subprocess.Popen` that jupyter_client uses.

    Attributes:
        pid: of its process; 0 where the server was killed before there was one.
        returncode: once it has ended, its exit status; minus a signal's number where a signal ended it.
    """

    stdin = stdout = stderr = None

    def __init__(self, server: socket.socket) -> None:
        self._server = server
        self.returncode: int | None = None
        self.pid = self._reply()

    def _reply(self) -> int:
        """The next number that the server says; where it was killed, its kernels were too."""
        said = b""
        with suppress(ConnectionError):
            said = self._server.recv(NUMBER.size, socket.MSG_WAITALL)
        if len(said) < NUMBER.size:
            self.returncode = -signal.SIGKILL
            return 0
        return int(NUMBER.unpack(said)[0])

    def poll(self) -> int | None:
        """The exit status; None while it runs."""
        if self.returncode is None and select.select([self._server], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end, at most for some seconds.

        Raises:
            subprocess.TimeoutExpired: it still runs.
        """
        if self.returncode is None:
            if timeout is not None and not select.select([self._server], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("kernel", timeout)
            status = self._reply()
            self.returncode = status if self.returncode is None else self.returncode
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal while it runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)


def serve(server: socket.socket) -> None:
    """Fork a kernel for each line that is read, say its process and its exit status, until nobody asks any more.

    Args:
        server: where requests come from, each the arguments of `_be_kernel` as JSON, and where answers go.
    """
    parent = os.getppid()
    _die_with(parent)
    gc.disable()
    _prepare()
    gc.collect()
    gc.freeze()  # a collection in a kernel leaves these pages shared
    me = os.getpid()
    for line in server.makefile("r"):
        kernel = os.fork()
        if kernel == 0:
            _die_with(me)
            os.close(server.detach())
            _be_kernel(**json.loads(line))
        server.sendall(NUMBER.pack(kernel))
        server.sendall(NUMBER.pack(os.waitstatus_to_exitcode(os.waitpid(kernel, 0)[1])))


def _die_with(parent: int) -> None:
    """Let Linux kill this process when its parent is gone, a loop that holds Python's lock or not."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _be_kernel(arguments: list[str], env: dict[str, str], folder: str, errors: str) -> NoReturn:
    """In the forked process: be what `python -m ipykernel_launcher` is."""
    ctypes.CDLL(None).prctl(PR_SET_NAME, KERNEL)
    os.setsid()
    file = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(file, 2)
    os.close(file)
    os.environ.clear()
    os.environ |= env
    os.chdir(folder)
    sys.path[0] = ""
    sys.argv = ["ipykernel_launcher", *arguments]
    gc.enable()
    _as_if_imported_now()
    from ipykernel.kernelapp import IPKernelApp

    # By default the parent is what the environment said when ipykernel was imported.
    IPKernelApp.launch_instance([*arguments, f"--IPKernelApp.parent_handle={os.getppid()}"])
    sys.exit()


def _prepare() -> None:
    """Import, and let do what each kernel would have to do alike."""
    for name in IMPORTED:
        importlib.import_module(name)
    import numpy as np

    from imgrec_lib.compiled import distinct
    from imgrec_lib.models import list_models
    from imgrec_lib.source import run_fingerprint

    for model in list_models():
        run_fingerprint(model)  # of the source as it is now, and as the kernels will run it
    distinct(np.zeros(1, np.int64))  # Numba sets itself up at its first call


def _as_if_imported_now() -> None:
    """Make good for what libraries read when they are loaded: random numbers, and how many threads there may be."""
    import numpy as np
    import torch
    from threadpoolctl import threadpool_limits

    np.random.seed()  # noqa: NPY002 (the stream of whoever still uses it)
    torch.default_generator.seed()
    if threads := os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(int(threads))
        threadpool_limits(int(threads))


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
