"""Files are written whole or not at all: to a temporary folder beside the target, then renamed. What takes long to make
is made once and kept in the cache."""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from imgrec_lib.errors import InputError

try:
    import fcntl
except ImportError:  # on Windows, where no folder can be locked
    fcntl = None  # type: ignore[assignment]

PART = ".part"
"""Ending of what is being written."""
ABANDONED_AFTER = 7 * 24 * 3600.0
"""Seconds after which what was being written counts as abandoned, where no lock tells whether its writer lives."""

CHOOSE_A_PLACE = "choose a place where you may write files."
CHOOSE_A_CACHE = "choose a cache folder where you may write files (IMGREC_CACHE, or `cache` where you gave it)."

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
DENIED = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EISDIR}
)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it onto `path` if the block succeeds, else delete it.

    What writers of the same path that were killed left behind is deleted too.

    Args:
        path: the file to write; its folder is made when missing.

    Raises:
        InputError: there is no room, or the folder cannot be written to.
    """
    path = Path(path)
    with _refusals(path, FULL | {errno.EISDIR}), _temporary_folder(path) as folder:
        temporary = folder / path.name
        yield temporary
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Like `replacing`, for a folder: `path` appears complete or not at all.

    A folder that already stands at `path` is replaced; it is never seen half deleted.
    """
    path = Path(path)
    with _refusals(path, FULL), _temporary_folder(path) as temporary:
        yield temporary
        os.chmod(temporary, 0o755)
        if path.exists():
            earlier = tempfile.mkdtemp(PART, f".{path.name}.", path.parent)
            os.replace(path, earlier)
            os.replace(temporary, path)
            shutil.rmtree(earlier, ignore_errors=True)
        else:
            os.replace(temporary, path)


class Spool:
    """An array that is written one block of rows behind the other into a file without a name, then read where it is.

    Of what is mapped so the system holds in memory what is read, as long as there is room. The file lies in the cache
    folder, whose disk has room for what is large, and goes with the last array of it, however the process ends.

    Raises:
        InputError: there is no room, or the folder cannot be written to.
    """

    def __init__(self) -> None:
        self.folder = default_cache()
        with _refusals(self.folder, FULL | DENIED, CHOOSE_A_CACHE):
            self.folder.mkdir(parents=True, exist_ok=True)
            self.file = tempfile.TemporaryFile(dir=self.folder)  # noqa: SIM115 (closed by `__exit__`)
        self.like, self.length = np.empty(0), 0

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *failure: object) -> None:
        self.file.close()

    def append(self, rows: np.ndarray) -> None:
        """Write (n, ...) rows behind those before, whose type and width they have."""
        with _refusals(self.folder, FULL):
            self.file.write(np.ascontiguousarray(rows).data)
        self.like, self.length = rows[:0], self.length + len(rows)

    def array(self) -> np.ndarray:
        """All rows, memory-mapped; what is changed in them is changed in memory alone."""
        shape = self.length, *self.like.shape[1:]
        with _refusals(self.folder, FULL):
            self.file.flush()
        if 0 in shape:
            return np.empty(shape, self.like.dtype)
        return np.asarray(np.memmap(self.file, self.like.dtype, "c", shape=shape))


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, where they are missing.

    Raises:
        InputError: it cannot be made there.
    """
    with _refusals(Path(path), FULL | DENIED):
        Path(path).mkdir(parents=True, exist_ok=True)


@contextmanager
def locked(path: Path, remedy: str = CHOOSE_A_PLACE) -> Iterator[None]:
    """Hold the lock of `path`, a file beside it, for work that one process at a time shall do. Its folder is made.

    The lock goes with its process, however that ends.

    Args:
        path: what the work is about.
        remedy: what the sentence advises when the folder cannot be written to.

    Raises:
        InputError: the folder cannot be written to.
    """
    path = Path(path)
    with _refusals(path, FULL | DENIED, remedy):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.parent / f".{path.name}.lock")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def cached(
    path: Path,
    make: Callable[[Path], None],
    is_valid: Callable[[Path], bool] = Path.exists,
    writer: Callable[[Path], AbstractContextManager[Path]] = replacing_folder,
) -> Path:
    """What is kept at `path` in the cache, made first where it is missing or no longer valid.

    Two processes that want the same do the work once. What is there already may lie in a cache that cannot be written.

    Args:
        path: where it lies or will lie.
        make: writes it to the path that it is given.
        is_valid: whether what lies at a path is what is wanted; by default whatever is there.
        writer: `replacing_folder`, or `replacing` for a single file.

    Returns:
        `path`.

    Raises:
        InputError: the cache has no room, or cannot be written to.
    """
    if not is_valid(path):
        with locked(path, CHOOSE_A_CACHE):
            if not is_valid(path):
                remove_abandoned(path.parent)
                with writer(path) as temporary:
                    make(temporary)
    with suppress(OSError):  # by this `imgrec cache` tells what is still used
        os.utime(path)
    return path


@contextmanager
def _refusals(path: Path, kinds: frozenset[int], remedy: str = CHOOSE_A_PLACE) -> Iterator[None]:
    """Turn those errors of the operating system into a sentence about `path`."""
    try:
        yield
    except OSError as error:
        if error.errno not in kinds:
            raise
        if error.errno in FULL:
            raise no_room(path, error.strerror) from error
        raise InputError(f"{path} cannot be written ({error.strerror}): {remedy}") from error


def no_room(path: Path, reason: str | None) -> InputError:
    """The error for a full disk or a quota."""
    return InputError(f"there is no room to write {path} ({reason}): free some space, or choose another disk.")


@contextmanager
def _temporary_folder(path: Path) -> Iterator[Path]:
    """A new folder beside `path`, locked as long as its writer lives: a folder without a lock is known to be abandoned.

    A single file is written in such a folder, too: some writers replace the file that they were given, and its lock.
    """
    with _refusals(path, FULL | DENIED):
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f".{glob.escape(path.name)}.*{PART}"):
            _remove_if_abandoned(left)
        while True:
            temporary = Path(tempfile.mkdtemp(PART, f".{path.name}.", path.parent))
            handle = _locked_handle(temporary)
            if temporary.exists():  # else another process took it for abandoned before it was locked
                break
            _close(handle)
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        _close(handle)


def _locked_handle(folder: Path) -> int | None:
    """An open handle that holds the lock of a folder; None where folders cannot be locked."""
    if fcntl is None:
        return None
    handle = os.open(folder, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    return handle


def _close(handle: int | None) -> None:
    if handle is not None:
        os.close(handle)


def remove_abandoned(folder: Path) -> None:
    """Delete what killed writers have left in a folder, whatever they were writing."""
    for left in Path(folder).glob(f".*{PART}"):
        _remove_if_abandoned(left)


def _remove_if_abandoned(left: Path) -> None:
    if fcntl is None:  # then nothing but its age tells
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > ABANDONED_AFTER:
                shutil.rmtree(left, ignore_errors=True)
        return
    try:
        handle = os.open(left, os.O_RDONLY)
    except OSError:
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(left, ignore_errors=True)
    except BlockingIOError:
        pass
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write `text` (UTF-8) to `path` atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON to `path` atomically; NaN is refused (ValueError), for JSON has none."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def fingerprint(*parts: Any) -> str:
    """Hash arrays, bytes, strings, numbers, and lists or dicts of them, to 16 hexadecimal digits.

    The same values give the same digits on every platform (arrays are hashed as little-endian
    bytes together with their dtype and shape).
    """
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            if part.dtype == object or part.dtype.kind == "U":
                digest.update(json.dumps([str(x) for x in part.ravel()]).encode())
            else:
                array = np.ascontiguousarray(part)
                array = array.astype(array.dtype.newbyteorder("<"), copy=False)
                digest.update(f"{array.dtype.str}{array.shape}".encode())
                digest.update(array.tobytes())
        elif isinstance(part, bytes):
            digest.update(part)
        else:
            digest.update(json.dumps(part, sort_keys=True, default=str).encode())
        digest.update(b"\0")
    return digest.hexdigest()[:16]


def shipped_folder(name: str) -> Path:
    """Where a folder of files that come with the library lies: inside an installed package, beside it in a clone.

    Args:
        name: "notebooks" or "matrices".

    Raises:
        InputError: the installation is incomplete.
    """
    package = Path(__file__).resolve().parent
    places = [package / "shipped" / name]
    if (package.parent / "pyproject.toml").is_file():
        places.append(package.parent / name)
    for folder in places:
        if folder.is_dir():
            return folder
    raise InputError(f"this installation has no {name} ({places[0]} is missing): install imgrec again.")


def default_cache() -> Path:
    """Where prepared images and features are kept: `$IMGREC_CACHE`, else `~/.cache/imgrec`.

    Raises:
        InputError: neither is known.
    """
    try:
        return Path(os.environ.get("IMGREC_CACHE") or "~/.cache/imgrec").expanduser()
    except RuntimeError:
        raise InputError("this user has no home folder: say with IMGREC_CACHE where a cache may be kept.") from None


def cache_folder(cache: str | Path | None, kind: str) -> Path:
    """The folder of a cache for one kind of what is kept there.

    Args:
        cache: the cache folder that somebody gave; None for `default_cache()`.
        kind: "images", "features", ...
    """
    return (default_cache() if cache is None else plain_path(cache)) / kind


def plain_path(path: str | Path) -> Path:
    """A path as people write it, in which "~" is the home folder.

    Raises:
        InputError: there is no such home folder.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise InputError(f"the home folder in {str(path)!r} is not known: write the whole path.") from None
