"""Notebooks as commands: their parameters checked, executed by papermill, the result renamed into place.

A notebook's parameters are the annotated assignments of the cell tagged `parameters`, one a line, each described by
the comment behind it: `seed: int = 0  # seeds weights and batches`.
"""

from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from imgrec_lib.errors import InputError, InputWarning, unknown_name
from imgrec_lib.extras import require
from imgrec_lib.files import default_cache, fingerprint, make_folder, shipped_folder, write_text
from imgrec_lib.kernel_server import ForkedKernel, KernelServer
from imgrec_lib.options import CountOrNone, NotNegative, Option, check_options
from imgrec_lib.progress import PLACE, showing

TYPES: dict[str, Any] = {
    "str": str, "int": CountOrNone, "float": NotNegative, "bool": bool, "list": list, "dict": dict,
}  # fmt: skip
"""Numbers of a notebook are counts, sizes, seeds and shares."""

LONGEST_START = 300
"""Seconds in which a notebook's process must answer."""
LONGEST_SHOWN = 1500
"""Letters of given parameters that an executed notebook shows unasked."""
LONGEST_SOCKET_PATH = 100
"""Bytes that every system takes; the limits are 103 and more."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of a notebook: its name, type name ("int", ...), default and description."""

    name: str
    type: str
    default: Any
    help: str


def notebooks_folder() -> Path:
    """Where the notebooks lie; see `shipped_folder`."""
    return shipped_folder("notebooks")


def notebook_path(name: str) -> Path:
    """The path of a notebook by its name without ending ("03_train").

    Raises:
        InputError: no notebook has that name.
    """
    names = {path.stem: path for path in notebooks_folder().glob("*.ipynb")}
    if name not in names:
        raise unknown_name("notebook", name, names)
    return names[name]


def notebook_parameters(name: str) -> dict[str, Parameter]:
    """The parameters of a notebook, by name.

    Raises:
        InputError: no notebook has that name.
    """
    require("notebooks")
    from papermill import inspect_notebook

    return {
        key: Parameter(key, entry["inferred_type_name"], ast.literal_eval(entry["default"]), entry["help"])
        for key, entry in inspect_notebook(str(notebook_path(name))).items()
    }


def notebook_options(name: str) -> dict[str, Option]:
    """The parameters of a notebook as `check_options` takes them.

    Raises:
        InputError: no notebook has that name.
    """
    return {key: Option(TYPES[entry.type], entry.default) for key, entry in notebook_parameters(name).items()}


def check_parameters(namespace: Mapping[str, Any]) -> dict[str, Any]:
    """Called by a notebook's first cell behind the parameters: refuse injected names that it does not declare.

    papermill itself only warns of an unknown parameter and injects it; a misspelt one would silently do nothing. From
    here on the notebook shows what is told of odd input once, however many of its runs it is true of.

    Args:
        namespace: the notebook's `globals()`.

    Returns:
        The declared parameters and their values.

    Raises:
        InputError: an undeclared name (with a suggestion), or a value of another type than declared.
    """
    annotations = _annotations(namespace).items()
    declared = {name: Option(TYPES.get(kind, kind) if isinstance(kind, str) else kind) for name, kind in annotations}
    plain = (str, int, float, bool, list, dict, type(None))
    # IPython's own history (In, Out, _, _dh, ...) is no parameter.
    values = {
        name: value
        for name, value in namespace.items()
        if not name.startswith("_") and name not in ("In", "Out") and isinstance(value, plain)
    }
    check_options("this notebook", declared, values)
    warnings.simplefilter("once", InputWarning)
    return {name: values[name] for name in declared}


def _annotations(namespace: Mapping[str, Any]) -> Mapping[str, Any]:
    if "__annotations__" in namespace:
        return namespace["__annotations__"]
    annotate = namespace.get("__annotate__")  # Python 3.14 keeps them behind a function
    return annotate(1) if annotate is not None else {}


def notebook_address(name: str, parameters: Mapping[str, Any], *inputs: str) -> str:
    """What makes an executed notebook: 16 hexadecimal digits of its code, parameters, inputs and the library's version.

    Args:
        name: the notebook.
        parameters: values by name.
        inputs: fingerprints of what it reads, and of the source it runs (`source_fingerprint`).
    """
    return fingerprint(_code(notebook_path(name)), dict(parameters), list(inputs), version("imgrec"))


def notebook_parts(name: str, parameters: Mapping[str, Any]) -> dict[str, str]:
    """What an address is made of beside its inputs, each part apart, so that one can say which of them has changed."""
    return {
        "notebook": fingerprint(_code(notebook_path(name))),
        "parameters": fingerprint(dict(parameters)),
        "version": version("imgrec"),
    }


@cache
def _code(path: Path) -> list[str]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def run_notebook(
    name: str,
    parameters: Mapping[str, Any],
    output: Path,
    *,
    address: str | None = None,
    progress: bool = True,
    server: KernelServer | None = None,
) -> Path:
    """Execute a notebook with papermill and leave the executed copy at `output`.

    Args:
        name: the notebook's name without ending.
        parameters: values by name; the others keep their defaults.
        output: the executed notebook; a failed one is kept beside it as `<output>.failed.ipynb`.
        address: of what is executed, see `notebook_address`; kept in the notebook's metadata.
        progress: show how far its work is: pictures, epochs, bytes (`progress_bar`).
        server: forks the notebook's process, for who runs many; None: the process is a new one.

    Returns:
        `output`.

    Raises:
        InputError: the extra "notebooks" is not installed, unknown notebook or parameter, wrong type, a cell that
            failed (its error in one sentence), or a kernel that ended.
    """
    require("notebooks")
    import nbformat
    import papermill
    from nbclient.exceptions import DeadKernelError

    check_options(f"notebook {name}", notebook_options(name), parameters)
    _require_text(output, parameters)
    failed = output.with_suffix(".failed.ipynb")
    running = output.with_suffix(".running.ipynb")
    make_folder(output.parent)
    place = progress_place(output)
    with tempfile.TemporaryDirectory(prefix="imgrec-") as scratch, showing(place) if progress else nullcontext():
        kernel = _Kernel(Path(scratch), place, server)
        try:
            notebook = papermill.execute_notebook(
                _unformatted(notebook_path(name)),
                _unformatted(running),
                parameters=dict(parameters),
                progress_bar=False,
                kernel_name="python3",
                start_timeout=LONGEST_START,
                **kernel.arguments(),
            )
        except papermill.PapermillExecutionError as error:
            os.replace(running, failed)
            raise InputError(f"notebook {name} failed: {error.evalue or error.ename} (see {failed})") from error
        except RuntimeError as error:
            at_its_start = str(error).startswith(("Kernel died", "Kernel didn't respond"))
            if not isinstance(error, DeadKernelError) and not at_its_start:
                raise
            if running.exists():
                os.replace(running, failed)
            raise InputError(f"notebook {name} failed: its process {kernel.ending()} (see {failed})") from error
        finally:
            place.unlink(missing_ok=True)
    notebook.metadata["imgrec"] = {"address": address}
    for cell in notebook.cells:
        # The names of a matrix's runs, say, would stand above all that they led to.
        if "injected-parameters" in cell.metadata.get("tags", ()) and len(cell.source) > LONGEST_SHOWN:
            cell.metadata["jupyter"] = {"source_hidden": True}
    write_text(output, nbformat.writes(notebook))
    running.unlink(missing_ok=True)
    failed.unlink(missing_ok=True)
    return output


def progress_place(output: Path) -> Path:
    """The file in which a notebook that is being executed keeps how far its work is (`progress.Work`).

    Args:
        output: as of `run_notebook`.
    """
    return output.resolve().with_suffix(".progress.json")


def prepare_notebook(name: str, parameters: Mapping[str, Any], output: Path) -> Path:
    """Write a notebook with its parameters set, to be executed by whoever opens it.

    Args:
        name, parameters: as of `run_notebook`.
        output: where it goes; what is there is replaced.

    Returns:
        `output`.

    Raises:
        InputError: the extra "notebooks" is not installed, unknown notebook or parameter, or wrong type.
    """
    require("notebooks")
    import nbformat
    import papermill

    check_options(f"notebook {name}", notebook_options(name), parameters)
    prepared = papermill.execute_notebook(
        _unformatted(notebook_path(name)), None, dict(parameters), prepare_only=True, kernel_name="python3"
    )
    write_text(output, nbformat.writes(prepared))
    return output


def _require_text(output: Path, parameters: Mapping[str, Any]) -> None:
    """Refuse what no notebook can hold: names of files that are bytes, and no text."""
    for text in (str(output), *(value for value in parameters.values() if isinstance(value, str))):
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InputError(
                f"{text!r} is not in UTF-8, which a notebook is: rename it, or train with --no-notebook."
            ) from None


def _unformatted(path: Path) -> str:
    """A path as papermill takes it, which replaces what stands in braces."""
    return str(path).replace("{", "{{").replace("}", "}}")


class _Kernel:
    """The process of a notebook: this Python, and nothing of the user's Jupyter takes part.

    Kernels that are installed under the name python3 are not looked at, nor are the user's IPython profile and the
    folder of running kernels: what the process needs, and what it writes to its standard error, lies in `scratch`.
    """

    def __init__(self, scratch: Path, place: Path, server: KernelServer | None) -> None:
        self.scratch = scratch
        self.place = place
        self.server = server
        self.errors = scratch / "stderr"
        self.process: subprocess.Popen[bytes] | ForkedKernel | None = None

    def arguments(self) -> dict[str, Any]:
        """What papermill is to be called with."""
        from ipykernel.kernelspec import get_kernel_dict
        from jupyter_client.kernelspec import KernelSpec
        from jupyter_client.manager import AsyncKernelManager
        from traitlets.config import Config

        kernel = self

        class ThisPython(AsyncKernelManager):
            @property
            def kernel_spec(self) -> KernelSpec:
                return KernelSpec(**get_kernel_dict())

            async def _async_launch_kernel(self, kernel_cmd: list[str], **kw: Any) -> None:
                # Matplotlib looks for fonts once, and not in each process where there is no home to keep them.
                fonts = {"MPLCONFIGDIR": str(default_cache() / "matplotlib")}
                own = {"IPYTHONDIR": str(kernel.scratch / "ipython"), PLACE: str(kernel.place)}
                kw["env"] = {**fonts, **kw["env"], **own}
                local: Any = self.provisioner
                if kernel.server is None:
                    with kernel.errors.open("wb") as errors:
                        await super()._async_launch_kernel(kernel_cmd, **kw, stderr=errors)
                else:
                    local.process = kernel.server.launch(self.connection_file, kw["env"], kw.get("cwd"), kernel.errors)
                    local.pid = local.pgid = local.process.pid or None
                kernel.process = local.process

        settings = {"connection_file": str(self.scratch / "kernel.json")}
        # Sockets as files: over tcp others may listen. But what the system takes as a socket's path is short.
        if sys.platform != "win32" and len(os.fsencode(self.scratch / "kernel-1")) <= LONGEST_SOCKET_PATH:
            settings |= {"transport": "ipc", "ip": str(self.scratch / "kernel")}
        return {
            "kernel_manager_class": ThisPython,
            "config": Config({"KernelManager": settings}),
            "extra_arguments": _dies_with_its_parent(),
        }

    def ending(self) -> str:
        """How the process ended, in words that follow "its process"."""
        code = None if self.process is None else self.process.poll()
        if code is None:
            return f"did not answer within {LONGEST_START} seconds: run fewer at a time"
        written = self.errors.read_text(encoding="utf-8", errors="replace").split("\n")
        last = next((line for line in reversed(written) if line.strip()), "nothing")
        return how_it_ended(code) + ("" if code == -SIGKILL else f", and wrote at last: {last}")


SIGKILL = getattr(signal, "SIGKILL", 9)  # which Windows does not have


def how_it_ended(code: int) -> str:
    """How a process ended that should not have, in words that follow "its process"; only a kill may be for memory.

    Args:
        code: its exit status; minus a signal's number where a signal ended it.
    """
    if code == -SIGKILL:
        return "was killed: if memory was short, run fewer at a time"
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"


def _dies_with_its_parent() -> list[str]:
    """Arguments of a kernel that make Linux kill it when the process that started it is gone, however that ended.

    ipykernel itself looks once a second whether its parent is still there, on every platform; but it looks from a
    thread, which waits for as long as a cell holds Python's lock.
    """
    if sys.platform != "linux":
        return []
    return ['--IPKernelApp.exec_lines=__import__("ctypes").CDLL(None).prctl(1, 9);']  # PR_SET_PDEATHSIG, SIGKILL
