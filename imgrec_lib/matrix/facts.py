"""What a plan must know of a dataset before it can be planned: its fingerprint, and whether it has pictures.

Reading a dataset takes minutes, so what was found is kept with the runs, in `<runs>/.datasets`, beside a stamp of what
it was read from: names, sizes and times of change of the files, the reader's options and its code. While the stamp
agrees, the dataset is not read again, whatever cache a command uses. (As with make, a file that changes with neither
size nor time goes unnoticed here; the training itself reads the data, and its record holds the true fingerprint.)
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from imgrec_lib.data import list_datasets, load_dataset
from imgrec_lib.data.storing import pictures_when_needed
from imgrec_lib.files import fingerprint, locked, write_json
from imgrec_lib.matrix.definition import Data
from imgrec_lib.source import source_fingerprint


@dataclass(frozen=True)
class Facts:
    """The fingerprint of a dataset (`Dataset.fingerprint`, pictures included where a model sees them), and whether it
    has pictures."""

    fingerprint: str
    pictures: bool


def known_facts(data: Data, runs: Path, seen: bool = True) -> Facts | None:
    """What is known of a dataset without reading it; None where it was never read or has changed since.

    Args:
        data: the dataset.
        runs: the folder of the runs that are made of it.
        seen: whether a model sees its pictures.
    """
    return _kept(_stamp(data, seen), _path(data, runs))


def read_facts(data: Data, runs: Path, seen: bool = True) -> Facts:
    """Read a dataset, and keep what is found for `known_facts`.

    Args:
        data, runs, seen: see there. Pictures that no model sees are not prepared.

    Raises:
        InputError: what `load_dataset` refuses, or `runs` cannot be written to.
    """
    path, stamp = _path(data, runs), _stamp(data, seen)  # before reading: what changes meanwhile must not go unnoticed
    with locked(path):
        facts = _kept(stamp, path)
        if facts is None:
            with pictures_when_needed():
                dataset = load_dataset(data.dataset, data.root or None, **data.options, **_silent(data))
            if seen:
                dataset = replace(dataset, pictures_count=True)  # a changed one is to be noticed
            facts = Facts(dataset.fingerprint, dataset.images is not None)
            write_json(path, {"stamp": stamp, "facts": asdict(facts)})
    return facts


def _kept(stamp: str, path: Path) -> Facts | None:
    """The facts in a file, if they bear that stamp."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return Facts(**kept["facts"]) if kept["stamp"] == stamp else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _silent(data: Data) -> dict[str, bool]:
    quiet = "progress" in list_datasets()[data.dataset].options and "progress" not in data.options
    return {"progress": False} if quiet else {}


def _path(data: Data, runs: Path) -> Path:
    return runs / ".datasets" / f"{fingerprint(asdict(data))}.json"


def _stamp(data: Data, seen: bool) -> str:
    options = {key: value for key, value in data.options.items() if key != "cache"}
    named = [data.root, *(value for value in options.values() if isinstance(value, str))]
    files = [entry for name in named if name for entry in _files(Path(name).expanduser())]
    return fingerprint(asdict(data), source_fingerprint([list_datasets()[data.dataset].module]), files, seen)


def _files(path: Path) -> Iterator[tuple[str, int, int]]:
    """Name, size and time of change of a file, or of every file below a folder, in a fixed order."""
    if path.is_file():
        found = path.stat()
        yield str(path), found.st_size, found.st_mtime_ns
    elif path.is_dir():
        with os.scandir(path) as entries:
            ordered = sorted(entries, key=lambda entry: entry.name)
        for entry in ordered:
            if entry.is_dir():
                yield from _files(Path(entry.path))
            else:
                found = entry.stat()
                yield entry.path, found.st_size, found.st_mtime_ns
