"""Which picture file is which item's: by its name, or by what a column of the item table says."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PureWindowsPath
from urllib.parse import urlsplit

from imgrec_lib.data.ids import how_ids_differ, plain_id
from imgrec_lib.errors import InputError, tell

ENDINGS = frozenset({".jpg", ".jpeg", ".jfif", ".png", ".webp", ".gif", ".bmp", ".avif", ".tif", ".tiff"})


def list_pictures(folder: Path) -> list[Path]:
    """All pictures below a folder, in alphabetical order.

    Raises:
        InputError: there is no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"there is no image folder {folder}: check the path.")
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS)


def pictures_by_name(folder: Path, items: Sequence[str]) -> dict[str, Path]:
    """The picture of each item that has one: the file that is named after it.

    Args:
        folder: where the pictures are, at any depth.
        items: ids; Unicode's ways to write a letter are one (see `plain_id`).

    Raises:
        InputError: no picture is named after an item, or two after the same.

    Warns when items without a picture are named almost as pictures are.
    """
    pictures = list_pictures(folder)
    found = _named_after(pictures, items)
    without = [item for item in items if item not in found]
    difference = how_ids_differ(without, [plain_id(path.stem) for path in pictures]) if without else ""
    if not found:
        example = f"{pictures[0].name!r}, for example" if pictures else "there are no pictures at all"
        raise InputError(
            f"no picture in {folder} is named after an item ({example}, while the first item is {items[0]!r}): "
            + (difference or "name them <item>.jpg, or give their paths in an 'image' column of the item table")
            + "."
        )
    if difference:
        tell(f"{len(without):,} items have no picture in {folder}: {difference}.")
    return found


def pictures_by_column(folder: Path, items: Sequence[str], written: Mapping[str, str], table: Path) -> dict[str, Path]:
    """The picture of each item that has one: the file that the item table names.

    A path is relative to the folder, or absolute and inside it. Where the table holds an address instead, or a list of
    them, the picture is the file of the address's name, or else the one that is named after the item.

    Args:
        folder: where the pictures are.
        items: ids.
        written: what the table says of each item; empty cells are left out.
        table: the table's file.

    Returns:
        Of an item whose file is missing the path where it should be.

    Raises:
        InputError: a path leads outside the folder, or no picture is found at all.

    Warns when pictures were found by the item's name.
    """
    pictures = list_pictures(folder)
    by_path = {plain_id(path.relative_to(folder).as_posix()): path for path in pictures}
    by_name = {plain_id(path.name): path for path in reversed(pictures)}
    found: dict[str, Path] = {}
    addressed: list[str] = []
    for item in items:
        if item not in written:
            continue
        paths, are_addresses = _paths(written[item])
        # Read as a Windows path, both kinds of slash separate.
        inside = [_inside(folder, PureWindowsPath(path)) for path in paths]
        names = [
            plain_id(PureWindowsPath(path).name) for path in paths if are_addresses or PureWindowsPath(path).anchor
        ]
        known = [by_path[path] for path in inside if path in by_path] + [
            by_name[name] for name in names if name in by_name
        ]
        if known:
            found[item] = known[0]
        elif are_addresses:
            addressed.append(item)
        elif inside[0] is None:
            raise InputError(
                f"the picture {written[item]!r} of item {item!r} lies outside the image folder: paths are relative to "
                f"{folder}."
            )
        else:
            found[item] = folder / inside[0]
    if addressed:
        named = _named_after(pictures, addressed)
        found |= named
        if named:
            tell(
                f"{table} gives addresses of pictures, and not files in {folder}, for {len(addressed):,} items: "
                f"{len(named):,} of these have the picture there that is named after the item."
            )
    if not any(os.path.isfile(path) for path in found.values()):
        raise InputError(
            f"no picture named in the item table is in {folder} (the first is {next(iter(written.values()), '')!r}): "
            "check the image folder; paths are relative to it, and pictures may also be named <item>.jpg."
        )
    return found


def _named_after(pictures: Iterable[Path], items: Iterable[str]) -> dict[str, Path]:
    wanted = set(items)
    found: dict[str, Path] = {}
    for path in pictures:
        item = plain_id(path.stem)
        if item in found:
            raise InputError(
                f"both {found[item]} and {path} are named after item {item!r}: keep one, or name the pictures in an "
                "'image' column of the item table."
            )
        if item in wanted:
            found[item] = path
    return found


def _paths(written: str) -> tuple[list[str], bool]:
    """The paths in a cell, of which there may be a list as Python and JSON write it, and whether they are addresses."""
    paths = [written]
    if written.startswith("["):
        for text in (written, written.replace("'", '"')):
            try:
                paths = [path for value in json.loads(text) for path in _texts(value)] or paths
            except (ValueError, RecursionError):
                continue
            break
    if any("://" in path for path in paths):
        return [urlsplit(path).path for path in paths], True
    return paths, len(paths) > 1


def _texts(value: object) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)


def _inside(folder: Path, path: PureWindowsPath) -> str | None:
    """The path below the folder, as `pictures_by_column` compares it; None where it leads outside."""
    if ".." in path.parts:
        return None
    if path.anchor:
        whole = Path(path.as_posix())
        if not whole.is_relative_to(folder.absolute()):
            return None
        return plain_id(whole.relative_to(folder.absolute()).as_posix())
    return plain_id(path.as_posix())
