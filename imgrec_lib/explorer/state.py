"""What the explorer shows, as plain values. They are an address too: a state survives reload, restart and mail."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields, replace
from typing import Annotated, Any
from urllib.parse import parse_qsl, urlencode

from imgrec_lib.errors import InputError, unknown_name
from imgrec_lib.options import Below, CountOrNone, Indices

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
COLOURINGS = ("popularity", "score", "error")
"""By what the dots of the map can be coloured, beside the columns of the item table."""
USER_ORDERS = ("as listed", "random", "longest history", "shortest history", "worst served", "best served")
COLUMN = "where."
"""How a condition on a column of the item table begins in an address: `where.colour=red`."""
LIMITS = {"number": (1, 200), "size": (48, 320), "page": (1, 10**9)}


UserIndex = Annotated[CountOrNone, Below("opened.dataset.n_users")]
ItemIndex = Annotated[CountOrNone, Below("opened.dataset.n_items")]
ItemIndices = Annotated[Indices, Below("opened.dataset.n_items")]
"""Whom and what functions of an opened run are asked about."""


@dataclass(frozen=True)
class State:
    """The present state of the explorer.

    Attributes:
        run: name of the run's folder; empty: the best run that sees pictures.
        view: the name of one of `VIEWS`.
        other: name of a second run on the same data, for comparison; empty: none.
        user: a user's id; empty: the first user with a test item.
        order: the order in which one goes from user to user: one of `USER_ORDERS`.
        item: id of the item that is looked at; empty: none.
        search: words that are looked for; empty: none.
        where: only items of which columns of the item table say so: (column, value), at most one value a column.
        popularity: only items so popular: one of `POPULARITY`.
        seen: only items that the user has, or has not, bought in training: one of `SEEN`.
        number: results a row.
        size: width of a picture in CSS pixels.
        metric: by which users are sorted and compared, such as "auc" or "ndcg@10".
        group: the group of users that is looked at in a comparison; empty: all.
        sort: the column by which the table of users is sorted, with a minus for the largest first.
        least, most: only users whose value in that column lies between the two; None: no bound.
        page: the page of the table of users.
        picture: name of a picture that somebody gave, taken as an item that is not in the catalogue; empty: none.
        space: what the map shows: items as "learned" by the run, or a set of features by its name, such as "picture".
        projection: how the map is made: one of `PROJECTIONS`.
        region: chosen part of the map, whose items are those that are looked at: left, top, right, bottom, or the
            corners x, y, x, y, ... of a polygon, each from 0 to 1; empty: none.
        zoom: the part of the map that is in view: left, top, right, bottom; empty: all.
        colour: by what the map's dots are coloured: one of `COLOURINGS`, or a column of the item table; empty: nothing.
    """

    run: str = ""
    view: str = "recommendations"
    other: str = ""
    user: str = ""
    order: str = "as listed"
    item: str = ""
    search: str = ""
    where: tuple[tuple[str, str], ...] = ()
    popularity: str = "any"
    seen: str = "not bought yet"
    number: int = 20
    size: int = 112
    metric: str = "auc"
    group: str = ""
    sort: str = "auc"
    least: float | None = None
    most: float | None = None
    page: int = 1
    picture: str = ""
    space: str = "learned"
    projection: str = "pca"
    region: tuple[float, ...] = ()
    zoom: tuple[float, ...] = ()
    colour: str = ""

    def __post_init__(self) -> None:
        for kind, value, known in (
            ("popularity", self.popularity, POPULARITY),
            ("choice of seen items", self.seen, SEEN),
            ("order of users", self.order, USER_ORDERS),
            ("projection", self.projection, PROJECTIONS),
        ):
            if value not in known:
                raise unknown_name(kind, value, known)
        for name, (low, high) in LIMITS.items():
            if not low <= getattr(self, name) <= high:
                raise InputError(f"{name} must be from {low} to {high}, not {getattr(self, name)}.")
        for name in ("region", "zoom"):
            object.__setattr__(self, name, tuple(float(x) for x in getattr(self, name)))
        if self.region and (len(self.region) < 4 or len(self.region) % 2 or not all(0 <= x <= 1 for x in self.region)):
            raise InputError(
                "a region of the map is [left, top, right, bottom], or the corners [x, y, x, y, ...] of a polygon, "
                f"from 0 to 1, not {list(self.region)}."
            )
        if self.zoom and not (len(self.zoom) == 4 and self.zoom[0] < self.zoom[2] and self.zoom[1] < self.zoom[3]):
            raise InputError(f"a zoom of the map is [left, top, right, bottom], not {list(self.zoom)}.")
        object.__setattr__(self, "where", tuple(sorted(dict(self.where).items())))

    def address(self, **changes: Any) -> str:
        """The state, with changes, as the query of an address ("run=ft&user=anna"); what is as by default is left out.

        Args:
            changes: fields by name.
        """
        changed = replace(self, **changes)
        pairs = []
        for each in fields(State):
            value = getattr(changed, each.name)
            if value == each.default:
                continue
            if each.name == "where":
                pairs += [(COLUMN + column, wanted) for column, wanted in value]
            elif each.name in ("region", "zoom"):
                pairs.append((each.name, " ".join(f"{x:.4f}" for x in value)))
            else:
                pairs.append((each.name, str(value)))
        return urlencode(pairs)

    @classmethod
    def at(cls, address: str) -> State:
        """The state at an address, see `address`; what an address does not say is as by default.

        Raises:
            InputError: a name that no state has, or a value that `State` does not admit.
        """
        known = {each.name: each for each in fields(State)}
        found: dict[str, Any] = {}
        where: dict[str, str] = {}
        for name, text in parse_qsl(address.removeprefix("?"), keep_blank_values=True):
            if name.startswith(COLUMN):
                if text:
                    where[name.removeprefix(COLUMN)] = text
                continue
            if name not in known or name == "where":
                raise unknown_name("part of the explorer's address", name, known)
            default = known[name].default
            assert default is not MISSING
            try:
                if name in ("least", "most"):
                    found[name] = float(text) if text else None
                elif name in ("region", "zoom"):
                    found[name] = tuple(float(x) for x in text.split())
                else:
                    found[name] = int(text) if isinstance(default, int) else text
            except ValueError:
                raise InputError(f"{name} in the explorer's address is no number: {text!r}.") from None
        return cls(**found, where=tuple(where.items()))
