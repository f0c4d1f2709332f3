"""Read the published `.npy` files of DVBPR without executing anything.

Each holds an object array of six entries, pickled by Python 2 at protocol 2. A pickle is a program, and unpickling a
file from the web runs it. Here nothing is unpickled: the opcodes that this format needs are interpreted one by one,
nothing is imported or called, and any other opcode or name is refused. The pictures are not read either: only where in
the file they lie is kept.
"""

from __future__ import annotations

import mmap
import pickletools
import re
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from tqdm.std import tqdm

from imgrec_lib.data.decoding import FileSlice
from imgrec_lib.errors import InputError
from imgrec_lib.progress import progress_bar

# Longer strings stay in the file: pictures do, ids and titles do not.
LONGEST_STRING = 1000
DEEPEST_NESTING = 100


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
