"""Reader of the data sets published with DVBPR (Kang et al., ICDM 2017): Amazon Fashion, Men, Women and Tradesy.

Each is one `.npy` file: an object array of six entries, pickled by Python 2 at protocol 2. They are the training,
validation and test dictionaries (user -> list of records with a `productid`), the item table (item -> record with
JPEG bytes `imgs`; on Fashion a one-hot `c`, on Men and Women the Amazon category paths `categories`), the number of
users and the number of items.

A pickle is a program, and unpickling a file from the web runs it. Here nothing is unpickled: the opcodes that this
format needs are interpreted one by one, nothing is imported or called, and any other opcode or name is refused. The
pictures are not read either: only where in the file they lie is kept.
"""

from __future__ import annotations

import mmap
import pickletools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
from tqdm.std import tqdm

from imgrec_lib.data.dataset import Columns, Dataset
from imgrec_lib.data.decoding import FileSlice, Fit, Resample, Source
from imgrec_lib.data.split import given_split
from imgrec_lib.data.storing import cached_images, reading_of
from imgrec_lib.data.times import check_forms, read_times
from imgrec_lib.errors import InputError, tell
from imgrec_lib.files import plain_path
from imgrec_lib.options import Count
from imgrec_lib.progress import progress_bar

FASHION_CATEGORIES = (
    "men's tops",
    "women's tops",
    "men's bottoms",
    "women's bottoms",
    "men's shoes",
    "women's shoes",
)
# Of a category path such as Clothing > Men > Shirts > Casual, counted from 0.
CATEGORY_DEPTH = 2
ITEMS_A_CATEGORY = 50
# Longer strings stay in the file: pictures do, ids and titles do not.
Key = str | int
LONGEST_STRING = 1000
DEEPEST_NESTING = 100


def load_dvbpr(
    root: str | Path,
    *,
    name: str | None = None,
    time_format: str | list[str] | None = None,
    image_size: Count = 224,
    image_fit: Fit = "squash",
    image_resample: Resample = "bicubic",
    cache: str | Path | None = None,
    progress: bool = True,
) -> Dataset:
    """Read a data set published with DVBPR, with its split.

    An item's id is its ASIN where the file has it, else its number. Textual categories are the third level of an
    item's first path (its last level where it is shorter); labels with fewer than 50 items become "other".
    Times are kept where every record has a `unixReviewTime`.

    Args:
        root: the `.npy` file.
        name: what to call the dataset; by default the file's name.
        time_format: the form of the times, or several, where it is not recognised; see `check_forms`.
        image_size: height and width of the stored pictures, in pixels.
        image_fit: "squash" changes the aspect ratio (the papers' choice), "pad" adds white, "crop" keeps the centre.
        image_resample: "bicubic", "bilinear" or "nearest" (DVBPR's, by Pillow's default of its time).
        cache: where the image store is kept; by default `default_cache()`.
        progress: whether to show progress bars.

    Raises:
        InputError: the file is missing, truncated, not in the published format, or wants something executed.
    """
    reading = reading_of(load_dvbpr, locals())
    forms = check_forms(time_format)
    path = plain_path(root)
    train, validation, test, table, n_users, n_items = read_published(path, progress)
    if isinstance(table, list):
        table = dict(enumerate(table))
    for what, part in (("training", train), ("validation", validation), ("test", test), ("item", table)):
        if not isinstance(part, dict):
            raise InputError(f"{path} is not in the published format: its {what} entry is no dictionary.")
    users = _ordered(train.keys() | validation.keys() | test.keys())
    keys = _ordered(table)
    for what, said, found in (("users", n_users, users), ("items", n_items, keys)):
        if not isinstance(said, int) or said != len(found):
            raise InputError(f"{path} says that it has {said} {what} but has {len(found)}: download it again.")

    user_index = {user: index for index, user in enumerate(users)}
    item_index = {item: index for index, item in enumerate(keys)}
    parts = [_interactions(path, part, user_index, item_index) for part in (train, validation, test)]
    parts = _with_times(path, parts, forms)
    user_ids = np.array([str(user) for user in users], dtype=object)
    for what, ids in (("users", users), ("items", keys)):
        texts = [str(key) for key in ids]
        if len(set(texts)) < len(texts):
            raise InputError(f"{path} has two {what} whose keys read alike as text: download it again.")
    split = given_split(parts[0], parts[1], parts[2], len(users), len(keys))

    records = [table[key] for key in keys]
    for key, record in zip(keys, records, strict=True):
        if not isinstance(record, dict):
            raise InputError(f"{path} is not in the published format: item {key} is no dictionary.")
    items = _item_table(keys, records)
    name = name or path.stem
    dataset = Dataset(name, user_ids, items, *split, split={"kind": "published"})
    images = cached_images(
        name,
        [_picture(record.get("imgs")) for record in records],
        items[Columns.ITEM].tolist(),
        cache,
        size=image_size,
        fit=image_fit,
        resample=image_resample,
        progress=progress,
        reading=reading,
    )
    return dataset.with_images(images)


def read_published(path: Path, progress: bool = True) -> list[Any]:
    """Read the six entries of a published file without executing anything.

    Args:
        path: the `.npy` file.
        progress: whether to show a progress bar.

    Returns:
        The entries, built of dict, list, tuple, str (Python 2's byte strings as Latin-1), int, float, bool, None,
        NumPy arrays, and a `FileSlice` in place of each string of more than 1,000 characters.

    Raises:
        InputError: see `load_dvbpr`.
    """
    if not path.is_file():
        raise InputError(f"there is no file {path}: give the published .npy file as `root`.")
    with open(path, "rb") as file:
        try:
            version = np.lib.format.read_magic(file)
            read_header = (
                np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            )
            shape, _, dtype = read_header(file)
        # NumPy, which takes the head for Python and even for Python 2, raises nearly anything on what is neither.
        except Exception:
            raise InputError(f"{path} is not a .npy file, or its head is damaged: download it again.") from None
        if not dtype.hasobject or shape != (6,):
            raise InputError(
                f"{path} holds an array of {dtype} and shape {shape}, not the six entries of the published format."
            )
        with (
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
            progress_bar(total=len(data), desc=path.name, unit="B", unit_scale=True, disable=not progress) as bar,
        ):
            data.seek(file.tell())
            try:
                entries = _Interpreter(path, data).run(bar)
            except InputError:
                raise
            # Whatever goes wrong in the interpreter, the file is at fault: it has no other input.
            except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
                raise InputError(
                    f"{path} is truncated or damaged near byte {data.tell()} ({error}): download it again."
                ) from None
    if not isinstance(entries, np.ndarray) or entries.shape != (6,):
        raise InputError(f"{path} does not have the six entries of the published format.")
    return list(entries)


class _Global(Enum):
    """What the pickle may name; the names stand for themselves, nothing is imported."""

    RECONSTRUCT = "_reconstruct"
    ARRAY = "ndarray"
    DTYPE = "dtype"
    SCALAR = "scalar"
    ENCODE = "encode"
    DEFAULTDICT = "defaultdict"
    LIST = "list"


_GLOBALS = {
    ("numpy.core.multiarray", "_reconstruct"): _Global.RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _Global.RECONSTRUCT,
    ("numpy.core.multiarray", "scalar"): _Global.SCALAR,
    ("numpy._core.multiarray", "scalar"): _Global.SCALAR,
    ("numpy", "ndarray"): _Global.ARRAY,
    ("numpy", "dtype"): _Global.DTYPE,
    ("_codecs", "encode"): _Global.ENCODE,
    ("collections", "defaultdict"): _Global.DEFAULTDICT,
    ("__builtin__", "list"): _Global.LIST,
    ("builtins", "list"): _Global.LIST,
}


class _Pending:
    """An array or dtype between the opcode that announces it and the one that fills it."""

    def __init__(self, dtype: np.dtype[Any] | None = None) -> None:
        self.dtype = dtype
        self.array: np.ndarray | None = None


# Opcodes that put a string on the stack, with the number of bytes before its first.
_STRINGS = {
    "SHORT_BINSTRING": 2,
    "BINSTRING": 5,
    "SHORT_BINBYTES": 2,
    "BINBYTES": 5,
    "BINBYTES8": 9,
    "SHORT_BINUNICODE": 2,
    "BINUNICODE": 5,
    "BINUNICODE8": 9,
}
_NUMBERS = ("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT")


class _Interpreter:
    """The pickle machine, reduced to what the published format needs.

    Args:
        path: the file, for `FileSlice` and messages.
        data: the file's content, at the pickle's first byte.
    """

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path, self.data = path, data
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        push = self.stack_push
        self.actions: dict[str, Callable[[Any], None]] = {
            **dict.fromkeys(_NUMBERS, self.number),
            "NONE": lambda _: push(None),
            "NEWTRUE": lambda _: push(True),
            "NEWFALSE": lambda _: push(False),
            "PROTO": lambda _: None,
            "FRAME": lambda _: None,
            "MARK": self.mark,
            "EMPTY_LIST": lambda _: push([]),
            "EMPTY_DICT": lambda _: push({}),
            "EMPTY_TUPLE": lambda _: push(()),
            "APPEND": lambda _: self.extend([self.stack.pop()]),
            "APPENDS": lambda _: self.extend(self.to_mark()),
            "SETITEM": lambda _: self.update([self.stack.pop(-2), self.stack.pop()]),
            "SETITEMS": lambda _: self.update(self.to_mark()),
            "TUPLE": lambda _: push(tuple(self.to_mark())),
            "TUPLE1": lambda _: self.tuple_of(1),
            "TUPLE2": lambda _: self.tuple_of(2),
            "TUPLE3": lambda _: self.tuple_of(3),
            **dict.fromkeys(("BINPUT", "LONG_BINPUT"), self.put),
            **dict.fromkeys(("BINGET", "LONG_BINGET"), lambda number: push(self.memo[number])),
            "MEMOIZE": lambda _: self.put(len(self.memo)),
            "GLOBAL": lambda names: self.name(*names.split(" ")),
            "STACK_GLOBAL": lambda _: self.name(self.stack.pop(-2), self.stack.pop()),
            "REDUCE": self.reduce,
            "BUILD": self.build,
        }

    def run(self, bar: tqdm[Any]) -> Any:
        """Interpret up to the end of the pickle; returns the array, filled."""
        actions = self.actions
        operations: Iterator[tuple[Any, Any, Any]] = pickletools.genops(_as_file(self.data))
        for count, (opcode, argument, position) in enumerate(operations):
            name = opcode.name
            if name in _STRINGS:
                self.string(argument, position + _STRINGS[name], as_text="UNICODE" in name)
            elif name == "STOP":
                break
            elif name in actions:
                actions[name](argument)
            else:
                raise InputError(f"{self.path} uses the pickle opcode {name}, which the published format does not.")
            if count % 100_000 == 0:
                bar.update(self.data.tell() - bar.n)
        bar.update(len(self.data) - bar.n)
        return _value(self.stack.pop())

    def stack_push(self, value: Any) -> None:
        self.stack.append(value)

    def number(self, value: int | float) -> None:
        if isinstance(value, int) and value.bit_length() > 63:
            raise ValueError("a whole number has more than 64 bits")
        self.stack.append(value)

    def string(self, value: str | bytes, start: int, as_text: bool) -> None:
        """A string, or where it lies if it is long. `genops` gives Python 2's byte strings as Latin-1 text."""
        if len(value) > LONGEST_STRING:
            self.stack.append(FileSlice(self.path, start, self.data.tell() - start, as_text))
        else:
            text = value.decode("latin-1") if isinstance(value, bytes) else value
            # Pickles may hold halves of surrogate pairs, which no file of text can.
            self.stack.append(text.encode("utf-8", "replace").decode() if as_text else text)

    def mark(self, _: Any) -> None:
        if len(self.marks) == DEEPEST_NESTING:
            raise InputError(f"{self.path} is nested more than {DEEPEST_NESTING} levels deep; the format is not.")
        self.marks.append(self.stack)
        self.stack = []

    def to_mark(self) -> list[Any]:
        values, self.stack = self.stack, self.marks.pop()
        return values

    def tuple_of(self, n: int) -> None:
        values = [self.stack.pop() for _ in range(n)]
        self.stack.append(tuple(reversed(values)))

    def put(self, number: int) -> None:
        self.memo[number] = self.stack[-1]

    def extend(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list):
            raise ValueError(f"items are appended to a {type(target).__name__}")
        target.extend(map(_value, values))

    def update(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict):
            raise ValueError(f"items are set in a {type(target).__name__}")
        for key, value in zip(values[::2], values[1::2], strict=True):
            if not isinstance(key, str | int):
                raise ValueError(f"the key of a dictionary is a {type(key).__name__}")
            target[key] = _value(value)

    def name(self, module: str, name: str) -> None:
        if (module, name) not in _GLOBALS:
            raise InputError(
                f"{self.path} names {module}.{name}, which the published format does not: it may be malicious; "
                "nothing was executed."
            )
        self.stack.append(_GLOBALS[module, name])

    def reduce(self, _: Any) -> None:
        arguments = self.stack.pop()
        match self.stack.pop(), arguments:
            case _Global.RECONSTRUCT, (_Global.ARRAY, (0,), "b"):
                self.stack.append(_Pending())
            case _Global.DTYPE, (str(code), *_) if re.fullmatch(r"[biuf][1248]|O8?", code):
                self.stack.append(_Pending(np.dtype(code[:1] if code.startswith("O") else code)))
            case _Global.SCALAR, (_Pending(dtype=np.dtype() as dtype), str(raw)) if not dtype.hasobject:
                self.stack.append(np.frombuffer(raw.encode("latin-1"), dtype)[0].item())
            case _Global.ENCODE, (str() | FileSlice() as text, "latin1"):
                self.stack.append(text)
            case _Global.DEFAULTDICT, (_Global.LIST,):
                self.stack.append({})
            case called, _:
                what = called.value if isinstance(called, _Global) else type(called).__name__
                raise InputError(
                    f"{self.path} calls {what} in a way that the published format does not: it may be malicious; "
                    "nothing was executed."
                )

    def build(self, _: Any) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if not isinstance(target, _Pending):
            raise InputError(f"{self.path} sets the state of a {type(target).__name__}; the format does not.")
        if target.dtype is not None:
            order = state[1]
            target.dtype = target.dtype.newbyteorder(order) if order in ("<", ">") else target.dtype
            return
        _, shape, pending, fortran, content = state
        dtype = pending.dtype
        if dtype.hasobject:
            array = np.empty(len(content), dtype=object)
            for index, value in enumerate(content):  # assigned at once, lists would become dimensions
                array[index] = value
        elif isinstance(content, FileSlice):
            raise ValueError("an array of numbers is larger than any in the published format")
        else:
            array = np.frombuffer(content.encode("latin-1"), dtype)
        target.array = array.reshape(shape, order="F" if fortran else "C")


def _as_file(data: mmap.mmap) -> BinaryIO:
    """A memory map has the methods of a file that `genops` uses; the type checker does not know."""
    return data  # type: ignore[return-value]


def _value(value: Any) -> Any:
    """What goes into a container: arrays themselves, once they are filled."""
    if isinstance(value, _Pending):
        if value.array is None:
            raise ValueError("an array has no content")
        return value.array
    return value


def _ordered(keys: Iterable[Key]) -> list[Key]:
    """Keys in numerical order, or in alphabetical order where one is no number."""
    keys = list(keys)
    return sorted(keys, key=None if all(isinstance(key, int) for key in keys) else str)


def _interactions(
    path: Path, part: dict[Any, Any], user_index: dict[Any, int], item_index: dict[Any, int]
) -> pd.DataFrame:
    """One part of the split as user and item indices, and the times as they are written."""
    users, items, times = [], [], []
    for user, records in part.items():
        for record in records if isinstance(records, list) else [records]:
            product = record.get("productid") if isinstance(record, dict) else None
            if not isinstance(product, str | int) or product not in item_index:
                raise InputError(
                    f"{path}: an interaction of user {user} has no productid, or one that is not in the item table."
                )
            users.append(user_index[user])
            items.append(item_index[product])
            times.append(record.get("unixReviewTime"))
    return pd.DataFrame(
        {
            Columns.USER: users,
            Columns.ITEM: items,
            Columns.TIME: pd.Series(times, index=range(len(times)), dtype=object),
        }
    )


def _with_times(path: Path, parts: list[pd.DataFrame], forms: list[str]) -> list[pd.DataFrame]:
    """The parts with their times in Unix seconds, or without times where a record has none."""
    written = pd.concat([part[Columns.TIME] for part in parts])
    missing = written.isna()
    if missing.any():
        if not missing.all():
            tell(f"{path}: {missing.sum():,} of {len(written):,} interactions have no time, so that no time is used.")
        return [part.drop(columns=Columns.TIME) for part in parts]
    seconds = read_times(written, "unixReviewTime", path, forms)
    ends = np.cumsum([len(part) for part in parts])
    return [
        part.assign(**{Columns.TIME: times}) for part, times in zip(parts, np.split(seconds, ends[:-1]), strict=True)
    ]


def _item_table(keys: list[Key], records: list[dict[str, Any]]) -> pd.DataFrame:
    """Ids, and categories and titles where the file has them."""
    asins = [record.get("asin") for record in records]
    named = all(isinstance(asin, str) for asin in asins) and len(set(asins)) == len(asins)
    columns = {Columns.ITEM: [str(key) for key in (asins if named else keys)]}
    fashion = [_fashion_category(record.get("c")) for record in records]
    if all(fashion):
        columns[Columns.CATEGORY] = fashion
    elif any(record.get("categories") for record in records):
        labels = [_label(record.get("categories")) for record in records]
        counts = Counter(labels)
        columns[Columns.CATEGORY] = [label if counts[label] >= ITEMS_A_CATEGORY else "other" for label in labels]
    if any(isinstance(record.get("title"), str) for record in records):
        titles = [record.get("title") for record in records]
        columns[Columns.NAME] = [title if isinstance(title, str) else "" for title in titles]
    return pd.DataFrame(columns)


def _fashion_category(one_hot: Any) -> str:
    """The category that a one-hot vector stands for; empty where it is none."""
    values = one_hot.tolist() if isinstance(one_hot, np.ndarray) else one_hot
    n = len(FASHION_CATEGORIES)
    valid = isinstance(values, list) and len(values) == n and values.count(1) == 1 and values.count(0) == n - 1
    return FASHION_CATEGORIES[values.index(1)] if valid else ""


def _label(paths: Any) -> str:
    """The label of an item by its category paths."""
    path = paths[0] if isinstance(paths, list | tuple) and paths else None
    label = path[min(CATEGORY_DEPTH, len(path) - 1)] if isinstance(path, list | tuple) and path else None
    return label if isinstance(label, str) else "other"


def _picture(value: Any) -> Source:
    """The JPEG of an item record."""
    if isinstance(value, str):
        return value.encode("latin-1", "replace")
    return value if isinstance(value, FileSlice) else None
