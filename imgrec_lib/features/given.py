"""Features that people bring: vectors computed elsewhere, joined to the catalogue by item id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch
from annotated_types import MinLen

from imgrec_lib.data.columns import ITEM_NAMES, plain_name
from imgrec_lib.data.ids import how_ids_differ, plain_id
from imgrec_lib.errors import InputError, few, one_line, tell
from imgrec_lib.features.extraction import Features
from imgrec_lib.features.preparation import Learnt, Preparation, learn_preparation
from imgrec_lib.files import fingerprint
from imgrec_lib.options import Count, Option, options_of

ENDINGS = (".npy", ".npz", ".parquet", ".safetensors", ".pt")
ID_NAMES = (*ITEM_NAMES, "id", "ids", "items", "itemids")
GIVEN = "given"
"""What a set is called to which nobody has given a name."""
VECTOR_NAMES = ("vector", "vectors", "embedding", "embeddings", "feature", "features", "values")


def read_features(
    source: str | Path | pd.DataFrame | np.ndarray | torch.Tensor | Features | Mapping[str, Any],
    item_ids: Annotated[Sequence[str] | np.ndarray, MinLen(1)],
    *,
    ids: str | Path | Sequence[Any] | None = None,
    in_order: bool = False,
    standardise: bool = False,
    unit_length: bool = False,
    components: Count | None = None,
    learnt: Learnt | None = None,
) -> Features:
    """Vectors of items as features, each joined to its item by id.

    Files: `.npy`, `.safetensors` and `.pt` hold one (n, d) array, and its ids stand in a list beside it: `ids`, or a
    file of the same name with the ending `.ids.txt`, one a line. `.npz` holds both arrays; `.parquet` has a column or
    an index of ids, and either a column of lists or d columns of numbers. No file is unpickled.

    Args:
        source: a file, a DataFrame whose index are the item ids, an array or a tensor; features of the same catalogue;
            or several of these by name, such as {"picture": "clip.npy", "text": "titles.parquet"}, whose vectors are
            put one behind the other. With `unit_length` each set then has the same weight.
        item_ids: (n_items,) the catalogue's ids, in the order of its rows.
        ids: ids of the rows of an array, or a file with one a line.
        in_order: the rows of an array are the catalogue's, in its order; without it an array needs `ids`.
        standardise: each dimension to mean 0 and standard deviation 1 over the items that have a vector.
        unit_length: each vector to length 1, after standardising.
        components: only so many principal components, last of all.
        learnt: what standardising and principal components had learnt from the same vectors, by name: a run keeps it,
            for rounded otherwise they would learn something else.

    Returns:
        The features, in memory, float32. An item without a vector gets zeros, as one without a picture does; a warning
        counts such items and names the first, and so it does with vectors of items that the catalogue does not have.

    Raises:
        InputError: a file that cannot be read, no ids, an id that is repeated or missing, a vector that is not finite,
            or no item in common with the catalogue.

    Example:
        >>> import numpy as np
        >>> from imgrec_lib import read_features
        >>> given = read_features(np.eye(3), ["shirt", "skirt", "shoe"], ids=["shoe", "shirt", "skirt"])
        >>> given.values.argmax(axis=1)
        array([1, 2, 0])
    """
    known = pd.Index(np.asarray(item_ids).astype(str))
    sources = source if isinstance(source, Mapping) else {"": source}
    parts, read, preparations = [], [], {}
    for name, each in sources.items():
        values, missing = _joined(each, known, ids, in_order, f"the features {name!r}" if name else "the features")
        if not isinstance(each, Features):
            read.append(values)
        if standardise or unit_length or components is not None:
            known_before = (learnt or {}).get(name or GIVEN, {})
            fits = all(len(part) == values.shape[1] for part in known_before.values())
            preparations[name or GIVEN] = preparation = (
                Preparation(unit_length, **known_before)
                if known_before and fits
                else learn_preparation(values[~missing], standardise, unit_length, components)
            )
            prepared = preparation(values[~missing])
            values = np.zeros((len(known), prepared.shape[1]), np.float32)
            values[~missing] = prepared
        parts.append(np.ascontiguousarray(values, dtype=np.float32))
    values = np.concatenate(parts, 1)
    widths = {name or GIVEN: part.shape[1] for name, part in zip(sources, parts, strict=True)}
    description = {
        "features": ", ".join(f"{name} ({width} dimensions)" for name, width in widths.items()),
        "random": "no",
        "standardise": "yes" if standardise else "no",
        "unit_length": "yes" if unit_length else "no",
        "components": "all" if components is None else str(components),
    }
    computed = {name: each for name, each in sources.items() if isinstance(each, Features)}
    # What is computed goes by what it is made of: another machine rounds it otherwise.
    made_of = {key: value for each in computed.values() for key, value in each.description.items() if key != "random"}
    if read:
        made_of["content"] = fingerprint(np.concatenate(read, 1))
    if any(each.random for each in computed.values()):
        description["random"] = "yes"
    of_table = frozenset(name for name, each in computed.items() if each.of_table)
    return Features(values, description | made_of, fingerprint(values), widths, of_table, preparations)


def given_feature_options() -> dict[str, Option]:
    """The options of `read_features`."""
    return {name: option for name, option in options_of(read_features).items() if name != "learnt"}


def _joined(
    source: Any, known: pd.Index, ids: str | Path | Sequence[Any] | None, in_order: bool, what: str
) -> tuple[np.ndarray, np.ndarray]:
    """(n_items, d) float32 in the catalogue's order, and (n_items,) bool: the items without a vector."""
    if isinstance(source, Features):
        if len(source.values) != len(known):
            raise InputError(f"{what} are of {len(source.values):,} items but the catalogue has {len(known):,}.")
        return np.asarray(source.values), ~np.any(source.values, axis=1)
    rows, given = _read(source, ids)
    if isinstance(source, str | Path):
        what = str(source)
    if rows.ndim != 2 or rows.dtype.kind not in "fiub" or not rows.size:
        raise InputError(f"{what} must be numbers in a table of items by dimensions, not {rows.dtype} {rows.shape}.")
    values = rows.astype(np.float32)
    if given is None:
        if not in_order:
            raise InputError(
                f"{what} does not say which item each of its {len(rows):,} rows is: give ids (an id a line, or a "
                "DataFrame whose index are the ids), or in_order=True where the rows are those of dataset.items."
            )
        if len(rows) != len(known):
            raise InputError(
                f"{what} has {len(rows):,} rows but the catalogue has {len(known):,} items: give their ids."
            )
        place = np.arange(len(known))
    else:
        own = pd.Index([_id_text(each, what) for each in given])
        if len(own) != len(rows):
            raise InputError(f"{what} has {len(rows):,} vectors but {len(own):,} ids: give one id for each.")
        if own.has_duplicates:
            repeated = own[own.duplicated()].unique()
            raise InputError(
                f"{what} names {len(repeated):,} items more than once ({few(repeated)}): keep one vector of each."
            )
        place = own.get_indexer(known)
        if (place < 0).all():
            raise InputError(
                f"{what} has no item of the catalogue: its ids are like {own[0]!r}, the catalogue's like {known[0]!r}"
                + (f"; {difference}." if (difference := how_ids_differ(own, known)) else ".")
            )
        unknown = own[~own.isin(known)]
        if len(unknown):
            tell(
                f"{what}: {len(unknown):,} of {len(own):,} vectors are of items that the catalogue does not have "
                f"({few(unknown)}); they are left out"
                + (f": {difference}." if (difference := how_ids_differ(unknown, known[place < 0])) else "."),
            )
    missing = place < 0
    found = np.where(missing[:, None], np.float32(0), values[place])
    bad = np.flatnonzero(~np.isfinite(found).all(1))
    if len(bad):
        raise InputError(
            f"{what}: the vectors of {len(bad):,} items are not finite ({few(known[bad])}): compute them again, "
            "or leave these items out."
        )
    if missing.any():
        tell(
            f"{what}: {int(missing.sum()):,} of {len(known):,} items have no vector ({few(known[missing])}); zeros "
            "stand for them."
        )
    return found, missing


def _read(source: Any, ids: str | Path | Sequence[Any] | None) -> tuple[np.ndarray, Sequence[Any] | None]:
    """The rows of a source and their ids, None where it does not say them."""
    if isinstance(source, pd.DataFrame):
        return source.to_numpy(), source.index.tolist() if ids is None else _ids(ids)
    if isinstance(source, torch.Tensor):
        source = source.detach().cpu().float().numpy()
    if not isinstance(source, str | Path):
        return np.asarray(source), None if ids is None else _ids(ids)
    path = Path(source).expanduser()
    if path.suffix.lower() not in ENDINGS:
        raise InputError(f"{path} is no file of features: its ending must be one of {', '.join(ENDINGS)}.")
    if not path.exists():
        raise InputError(f"there is no file of features {path}: check the path.")
    try:
        rows, own = _READERS[path.suffix.lower()](path)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or one_line(error)}): check the path.") from None
    except Exception as error:  # the libraries raise many kinds of exception on damaged files
        raise InputError(
            f"{path} cannot be read ({one_line(error)}): write numbers only, without pickled objects."
        ) from None
    if ids is not None:
        return rows, _ids(ids)
    beside = path.with_suffix(".ids.txt")
    return rows, own if own is not None else _ids(beside) if beside.is_file() else None


def _ids(ids: str | Path | Sequence[Any]) -> Sequence[Any]:
    if not isinstance(ids, str | Path):
        return list(ids)
    path = Path(ids).expanduser()
    try:
        return path.read_text(encoding="utf-8-sig").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the ids {path} cannot be read ({one_line(error)}): write one a line, as text.") from None


def _id_text(value: Any, what: str) -> str:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str) and plain_id(value):
        return plain_id(value)
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return str(int(value))
    raise InputError(f"{what} has the id {value!r}: ids must be text or whole numbers, as in the catalogue.")


def _only(named: Mapping[str, Any], path: Path) -> Any:
    """The one table of vectors among named arrays."""
    tables = {name: array for name, array in named.items() if getattr(array, "ndim", 0) == 2}
    if len(tables) != 1:
        wanted = {name: array for name, array in tables.items() if name.lower() in VECTOR_NAMES}
        if len(wanted) != 1:
            raise InputError(f"{path} must hold one table of vectors, not {len(tables)} (it holds {few(named)}).")
        tables = wanted
    return next(iter(tables.values()))


def _named_ids(named: Mapping[str, Any]) -> Sequence[Any] | None:
    for name, array in named.items():
        if plain_name(name) in ID_NAMES and getattr(array, "ndim", 0) == 1:
            ids: Sequence[Any] = array.tolist()
            return ids
    return None


def _read_npz(path: Path) -> tuple[np.ndarray, Sequence[Any] | None]:
    with np.load(path, allow_pickle=False) as file:
        named = {name: file[name] for name in file.files}
    return _only(named, path), _named_ids(named)


def _read_parquet(path: Path) -> tuple[np.ndarray, Sequence[Any] | None]:
    table = pd.read_parquet(path)
    if table.index.name is not None:
        table = table.reset_index()
    ids = next((column for column in table if plain_name(str(column)) in ID_NAMES), None)
    if ids is None and not isinstance(table.index, pd.RangeIndex):
        ids, table = ID_NAMES[0], table.rename_axis(ID_NAMES[0]).reset_index()
    if ids is None:
        raise InputError(f"{path} has no column of ids: call it 'item'.")
    rest = table.drop(columns=[ids])
    lists = [column for column in rest if not pd.api.types.is_numeric_dtype(rest[column])]
    if len(lists) == 1 and len(rest.columns) == 1:
        table, rest = table[rest[lists[0]].notna()], rest.dropna()
        lengths = rest[lists[0]].map(len)
        if lengths.nunique() > 1:
            raise InputError(f"{path}: the vectors of column {lists[0]!r} have different lengths: make them equal.")
        return np.stack(rest[lists[0]].to_list()), table[ids].tolist()
    if lists:
        raise InputError(
            f"{path}: column {lists[0]!r} is no number: keep the ids and numbers, or the ids and one list."
        )
    return rest.to_numpy(), table[ids].tolist()


def _read_safetensors(path: Path) -> tuple[np.ndarray, Sequence[Any] | None]:
    from safetensors.torch import load_file

    named = load_file(path)
    return _only(named, path).float().numpy(), _named_ids(named)


def _read_pt(path: Path) -> tuple[np.ndarray, Sequence[Any] | None]:
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception:  # of many kinds, and one of them advises to run what the file holds
        raise InputError(f"{path} is damaged, or holds more than tensors and text: save these alone.") from None
    if isinstance(found, torch.Tensor):
        return found.float().numpy(), None
    if not isinstance(found, dict):
        raise InputError(f"{path} must hold a tensor, or a dictionary of tensors, not {type(found).__name__}.")
    ids = next((found[name] for name in found if plain_name(str(name)) in ID_NAMES), None)
    table = _only({str(name): value for name, value in found.items()}, path)
    return table.float().numpy(), ids.tolist() if isinstance(ids, torch.Tensor) else ids


_READERS = {
    ".npy": lambda path: (np.load(path, allow_pickle=False), None),
    ".npz": _read_npz,
    ".parquet": _read_parquet,
    ".safetensors": _read_safetensors,
    ".pt": _read_pt,
}
