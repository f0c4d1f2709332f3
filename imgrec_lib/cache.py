"""What is kept in the cache: how much room it takes, when it was last used, and how it is made smaller."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from imgrec_lib.errors import InputError
from imgrec_lib.files import default_cache, plain_path, remove_abandoned
from imgrec_lib.options import NotNegative, checked

DAY = 24 * 3600.0
KINDS = ("images", "features", "activations", "attributes", "thumbnails")
"""The folders of a cache: each holds one file or folder for each thing that is kept."""


@dataclass(frozen=True)
class Kept:
    """Something that is kept in the cache.

    Attributes:
        kind: one of `KINDS`.
        path: the file or folder.
        n_bytes: what it takes on the disk.
        days_unused: days since it was last made or opened.
    """

    kind: str
    path: Path
    n_bytes: int
    days_unused: float


@checked
def list_cache(cache: str | Path | None = None) -> list[Kept]:
    """What is kept in the cache, the largest first.

    Args:
        cache: the cache folder; by default `$IMGREC_CACHE`, else `~/.cache/imgrec`.

    Example:
        >>> from imgrec_lib import list_cache, load_dataset
        >>> _ = load_dataset("wardrobe", n_users=40, n_items=50, image_size=8, cache="my-cache", progress=False)
        >>> [(kept.kind, kept.n_bytes > 50 * 8 * 8 * 3) for kept in list_cache("my-cache")]
        [('images', True)]
    """
    folder = default_cache() if cache is None else plain_path(cache)
    now = time.time()
    found = [
        Kept(kind, path, *_measured(path, now))
        for kind in KINDS
        for path in _entries(folder / kind)
        if not path.is_symlink()
    ]
    return sorted(found, key=lambda kept: (-kept.n_bytes, str(kept.path)))


@checked
def prune_cache(unused_for: NotNegative = 30, *, cache: str | Path | None = None, dry_run: bool = False) -> list[Kept]:
    """Delete what was not used for some days, and what killed processes have left; all can be made again.

    Args:
        unused_for: days; 0 deletes everything.
        cache: the cache folder; by default `$IMGREC_CACHE`, else `~/.cache/imgrec`.
        dry_run: delete nothing.

    Returns:
        What was deleted, or would be.

    Raises:
        InputError: a number of days below 0, or something that cannot be deleted.

    Example:
        >>> from imgrec_lib import prune_cache
        >>> prune_cache(30, cache="my-cache", dry_run=True)
        []
    """
    going = [kept for kept in list_cache(cache) if kept.days_unused >= unused_for]
    if dry_run:
        return going
    for kind in KINDS:
        remove_abandoned((default_cache() if cache is None else plain_path(cache)) / kind)
    for kept in going:
        try:
            if kept.path.is_dir():
                shutil.rmtree(kept.path)
            else:
                kept.path.unlink(missing_ok=True)
        except OSError as error:
            raise InputError(f"{kept.path} cannot be deleted ({error.strerror}): delete it yourself.") from None
    return going


def _entries(folder: Path) -> Iterator[Path]:
    """What lies in a folder, without locks and what is being written, which begin with a dot."""
    if folder.is_dir():
        yield from (path for path in folder.iterdir() if not path.name.startswith("."))


def _measured(path: Path, now: float) -> tuple[int, float]:
    """Bytes of a file or of all files below a folder, and days since the latest change of any of them."""
    files = [path]
    if path.is_dir():
        files += [Path(folder) / name for folder, _, names in os.walk(path) for name in names]
    n_bytes, latest = 0, 0.0
    for file in files:
        try:
            stat = file.stat()
        except OSError:  # another process has just deleted it
            continue
        n_bytes += 0 if file.is_dir() else stat.st_size
        latest = max(latest, stat.st_mtime)
    return n_bytes, max(0.0, (now - latest) / DAY)
