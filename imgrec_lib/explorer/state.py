"""What the explorer shows, as plain values, which are also parameters of notebook 09: so a view can be frozen."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import yaml

from imgrec_lib.errors import InputError, unknown_name
from imgrec_lib.files import fingerprint, replacing, write_text

NOTEBOOK = "09_explore"
SEEN = ("not bought yet", "bought", "all")
POPULARITY = {
    "any": (0, None),
    "never bought": (0, 0),
    "bought 1 to 4 times": (1, 4),
    "bought 5 to 19 times": (5, 19),
    "bought 20 times or more": (20, None),
}
"""Bands of training interactions, both ends included."""
PROJECTIONS = ("pca", "umap")
SPACES = ("learned", "picture")


@dataclass(frozen=True)
class State:
    """The present state of the explorer.

    Attributes:
        run: name of the run's folder; empty: the first one.
        other: name of a second run on the same data, for comparison; empty: none.
        user: a user's id; empty: the first user with a test item.
        number: results a row.
        category: only items of this category; empty: all.
        popularity: only items so popular: one of `POPULARITY`.
        seen: only items that the user has, or has not, bought in training: one of `SEEN`.
        item: id of the item whose neighbours are shown; empty: the first recommended one.
        picture: a picture file, taken as an item that is not in the catalogue; empty: none.
        space: what the map shows: items as "learned" by the run, or the "picture" features.
        projection: how the map is made: one of `PROJECTIONS`.
        region: chosen part of the map: left, top, right, bottom, each from 0 to 1; empty: none.
    """

    run: str = ""
    other: str = ""
    user: str = ""
    number: int = 20
    category: str = ""
    popularity: str = "any"
    seen: str = "not bought yet"
    item: str = ""
    picture: str = ""
    space: str = "learned"
    projection: str = "pca"
    region: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for kind, value, known in (
            ("popularity", self.popularity, POPULARITY),
            ("choice of seen items", self.seen, SEEN),
            ("space of the map", self.space, SPACES),
            ("projection", self.projection, PROJECTIONS),
        ):
            if value not in known:
                raise unknown_name(kind, value, known)
        if self.number < 1:
            raise InputError(f"the number of results must be at least 1, not {self.number}.")
        object.__setattr__(self, "region", tuple(float(x) for x in self.region))
        if self.region and (len(self.region) != 4 or not all(0 <= x <= 1 for x in self.region)):
            raise InputError(f"a region of the map is [left, top, right, bottom] from 0 to 1, not {list(self.region)}.")


def state_of(parameters: dict[str, Any]) -> State:
    """The state among the parameters of notebook 09.

    Raises:
        InputError: a value that `State` does not admit.
    """
    return State(**{f.name: parameters[f.name] for f in fields(State)})


@dataclass(frozen=True)
class Frozen:
    """A state as files: `parameters` (YAML) for notebook 09, the `command` that runs it, and the `page` it leaves."""

    parameters: Path
    command: str
    page: Path


def freeze(state: State, runs: Path, notebook: Path, folder: Path, root: Mapping[str, str] | None = None) -> Frozen:
    """Write a state as a parameter file of notebook 09, with a copy of the picture where one was given.

    Args:
        state: what is shown.
        runs: the folder of the runs.
        notebook: notebook 09.
        folder: where the files go.
        root: where the data lie now, if they were moved: see `Runs`.

    Returns:
        The file and the command that makes of it a static report with the same pictures.
    """
    folder = folder.resolve()
    name = f"explore-{fingerprint(asdict(state), str(runs.resolve()))[:8]}"
    if state.picture:
        kept = folder / f"{name}{Path(state.picture).suffix}"
        if kept != Path(state.picture).resolve():
            with replacing(kept) as temporary:
                shutil.copyfile(state.picture, temporary)
        state = replace(state, picture=str(kept))
    places = {"runs": str(runs.resolve()), "root": dict(root or {})}
    parameters = places | asdict(state) | {"region": list(state.region), "static": True}
    path = folder / f"{name}.yaml"
    write_text(path, yaml.safe_dump(parameters, sort_keys=False, allow_unicode=True))
    python, executed = shlex.quote(sys.executable), folder / f"{name}.ipynb"
    command = (
        f"{python} -m papermill {shlex.quote(str(notebook.resolve()))} {shlex.quote(str(executed))} "
        f"-f {shlex.quote(str(path))} && "
        f"{python} -m nbconvert --to html --no-input {shlex.quote(str(executed))}"
    )
    return Frozen(path, command, folder / f"{name}.html")
