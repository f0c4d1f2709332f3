"""The view of the map: its dots and their colours, the user's items on it, what lies where, and what was chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec

import numpy as np
import pandas as pd
from markupsafe import Markup

from imgrec_lib.data.dataset import Columns, describe_item, latest_items
from imgrec_lib.errors import unknown_name
from imgrec_lib.explorer.item_map import ItemMap, Live, by_name, inside, positions_of, space_of, spaces_of
from imgrec_lib.explorer.ranking import candidates, rank, user_scores
from imgrec_lib.explorer.search import facets
from imgrec_lib.explorer.shown import Shown, Text, actions_html, cell_of, table_html, user_name
from imgrec_lib.explorer.state import COLOURINGS, POPULARITY, PROJECTIONS, State
from imgrec_lib.gallery.gallery import Gallery
from imgrec_lib.gallery.html import PART_COLOURS
from imgrec_lib.gallery.rows import Row
from imgrec_lib.gallery.thumbnails import thumbnail_uri
from imgrec_lib.serving import Trained

GREY = "#8b949e"
RISING = ("#5ec962", "#21918c", "#3b528b", "#440154")
"""Colours of rising values: viridis without its yellow, which is not seen on white."""
ERRORS = (0.1, 0.25, 0.5)
"""Where the shares of items above a test item are divided."""
WORDS = (4, 3)
"""The columns and rows into which the part in view is divided for those who read the map."""
TOLD = 6
"""Columns of the item table, and values of each, that are counted in what was chosen."""


@dataclass(frozen=True)
class Groups:
    """Items in groups, each of one colour.

    Attributes:
        codes: (n_items,) int32, the group of each.
        names: what each group is.
        colours: of each, "#rrggbb".
    """

    codes: np.ndarray
    names: tuple[str, ...]
    colours: tuple[str, ...]


def groups_of(opened: Trained, user: int, by: str) -> Groups:
    """Items in groups by which they are coloured.

    Args:
        opened: the run.
        user: whose score.
        by: "popularity" (training interactions), "score" (the user's, in quarters), "error" (the share of the ranked
            items that stand above a test item, in the mean over those who bought it), or a column of the item table
            (its most frequent values); empty: all alike.

    Raises:
        InputError: the item table has no such column.
    """
    n_items = opened.dataset.n_items
    if not by:
        return Groups(np.zeros(n_items, np.int32), ("items",), (GREY,))
    if by == "popularity":
        bands = {name: band for name, band in POPULARITY.items() if name != "any"}
        starts = [low for low, _ in bands.values()]
        codes = np.searchsorted(starts, opened.popularity, side="right") - 1
        return Groups(codes.astype(np.int32), tuple(bands), (GREY, *RISING[1:]))
    if by == "score":
        scores = user_scores(opened, user)
        known = np.isfinite(scores)
        edges = np.quantile(scores[known], [0.25, 0.5, 0.75])
        codes = np.where(known, 1 + np.searchsorted(edges, scores, side="right"), 0)
        quarters = [f"{name} quarter" for name in ("lowest", "second", "third", "highest")]
        ends = [f"below {edges[0]:.3f}", *(f"from {edge:.3f}" for edge in edges)]
        names = [f"{quarter} of the user's scores, {end}" for quarter, end in zip(quarters, ends, strict=True)]
        return Groups(codes.astype(np.int32), ("no score", *names), (GREY, *RISING))
    if by == "error":
        table = opened.run.per_user
        above = (table["exact/higher"] + table["exact/tied"] / 2) / table["exact/candidates"].clip(lower=1)
        mean = above.groupby(table["item"]).mean()
        codes = np.zeros(n_items, np.int32)
        codes[mean.index.to_numpy()] = 1 + np.searchsorted(ERRORS, mean.to_numpy(), side="right")
        first, second, third = (f"{100 * edge:.0f} %" for edge in ERRORS)
        bounds = (f"under {first}", f"{first} to {second}", f"{second} to {third}", f"{third} or more")
        names = [f"{bound} of the items stand above it, for those who bought it" for bound in bounds]
        return Groups(codes, ("no test item", *names), (GREY, *RISING))
    table = opened.dataset.items
    if by not in table:
        raise unknown_name("colouring of the map", by, [*COLOURINGS, *facets(opened.dataset)])
    values = table[by].fillna("").astype(str)
    frequent = values[values != ""].value_counts().index[: len(PART_COLOURS) - 1].tolist()
    codes = pd.Index(frequent).get_indexer(pd.Index(values))
    others = () if (codes >= 0).all() else ("all others",)
    codes = np.where(codes < 0, len(frequent), codes).astype(np.int32)
    return Groups(codes, (*frequent, *others), (*PART_COLOURS[: len(frequent)], *(GREY for _ in others)))


def points(opened: Trained, user: int, state: State) -> bytes:
    """The dots of the state's map, the more popular first, as map.js reads them.

    Returns:
        Little-endian (2, n) float32 positions from 0 to 1, then (n,) int32 items, then (n,) int32 groups, see `Groups`.
    """
    shown = _shown(opened, user, state)
    positions = positions_of(opened, state)[shown].T
    codes = groups_of(opened, user, state.colour).codes[shown]
    return positions.astype("<f4").tobytes() + shown.astype("<i4").tobytes() + codes.astype("<i4").tobytes()


def pictures(opened: Trained, items: Sequence[int]) -> dict[str, tuple[str, str, str]]:
    """Items on the map: by index their picture as it stands in HTML ("" where there is none), their name and id."""
    dataset, found = opened.dataset, {}
    for item in items:
        if 0 <= item < dataset.n_items:
            there = dataset.images is not None and dataset.images.shows(item)
            source = thumbnail_uri(dataset.images, item, 96)[0] if dataset.images is not None and there else ""
            found[str(item)] = (source, ", ".join(describe_item(dataset, item)), str(opened.item_ids[item]))
    return found


def _shown(opened: Trained, user: int, state: State) -> np.ndarray:
    """(n,) int64: the items on the map, the more popular first."""
    mask = candidates(opened, user, replace(state, view="map"))
    order = np.argsort(-opened.popularity, kind="stable")
    return order[mask[order]]


def embedding_map(opened: Trained, user: int, state: State) -> list[Shown]:
    """The catalogue on a plane: a dot an item, the user's purchases and recommendations, and what was chosen.

    Raises:
        InputError: there is nothing to make a map of, or no such colouring.
    """
    dataset = opened.dataset
    positions = positions_of(opened, state)
    shown = _shown(opened, user, state)
    groups = groups_of(opened, user, state.colour)
    names = dataset.items[Columns.NAME if Columns.NAME in dataset.items else Columns.ITEM].astype(str).to_numpy()
    marks = [
        (round(float(positions[item][0]), 5), round(float(positions[item][1]), 5), kind, f"{names[item]} ({kind})")
        for kind, items in (
            ("bought", latest_items(dataset, user)),
            ("recommended", rank(opened, user, state).items[: state.number]),
        )
        for item in items[:200].tolist()
    ]
    # What only moves the eye, or chooses, changes no dot: the browser keeps those that it has.
    told = ("run", "user", "where", "popularity", "seen", "space", "projection", "colour")
    dots = State(**{name: getattr(state, name) for name in told})
    title = f"{len(shown):,} items, {by_name(opened, space_of(opened, state))}"
    drawn = ItemMap(
        title, positions, shown, names, dataset.images, state.region, state.zoom,
        Live(dots.address(), groups.colours, tuple(marks)),
    )  # fmt: skip
    parts: list[Shown] = [Text(_choices(opened, state)), drawn, Text(_legend(groups, shown, state))]
    parts.append(Text(_in_words(opened, positions, shown, groups, state)))
    if state.region:
        chosen = drawn.inside()
        scores = user_scores(opened, user)
        best = chosen[np.argsort(-scores[chosen], kind="stable")][: state.number]
        row = Row(
            f"{len(chosen):,} items in the chosen part, {len(best)} of them shown, the best for "
            f"{user_name(opened, user)} first",
            tuple(cell_of(opened, int(item), float(scores[item])) for item in best),
        )
        parts += [Gallery("Chosen on the map", (row,), dataset.images), Text(_counts(opened, chosen, shown, state))]
    return parts


def other_maps(opened: Trained, state: State) -> list[tuple[str, dict[str, str]]]:
    """The maps that there are beside the one shown: what to call each, and how its state differs."""
    projections = {"pca": "Principal components", "umap": "UMAP"}
    shown = space_of(opened, state)
    names = {space: by_name(opened, space) for space in spaces_of(opened) if space != shown}
    found = [(name[0].upper() + name[1:], {"space": space}) for space, name in names.items()]
    for name in PROJECTIONS:
        if name != state.projection and (name == "pca" or find_spec(name)):
            found.append((projections[name], {"projection": name}))
    return found


def _choices(opened: Trained, state: State) -> Markup:
    options = Markup().join(
        Markup('<option value="{}"{}>{}</option>').format(
            value, Markup(" selected") if value == state.colour else "", text
        )
        for value, text in (
            ("", "nothing"),
            *((each, each) for each in COLOURINGS),
            *((column, column.replace("_", " ")) for column in facets(opened.dataset)),
        )
    )
    links = Markup().join(
        Markup('<a class="like-button" href="?{}">{}</a>').format(state.address(region=(), zoom=(), **change), name)
        for name, change in other_maps(opened, state)
    )
    form = Markup('<form><label>Colour by<select name="colour">{}</select></label></form>').format(options)
    return Markup('<div class="line">{}{}</div>').format(form, actions_html(links) if links else "")


def _legend(groups: Groups, shown: np.ndarray, state: State) -> Markup:
    """Which colour is what, and how many items have it."""
    counts = np.bincount(groups.codes[shown], minlength=len(groups.names))
    entries = [
        Markup('<li><i style="background:{}"></i>{} ({:,})</li>').format(colour, name, int(count))
        for name, colour, count in zip(groups.names, groups.colours, counts, strict=True)
        if count and state.colour
    ]
    entries.append(Markup('<li><b class="mark bought"></b>bought by the user</li>'))
    entries.append(Markup('<li><b class="mark recommended"></b>recommended</li>'))
    return Markup('<ul class="map-legend" aria-label="Legend of the map">{}</ul>').format(Markup().join(entries))


def _in_words(opened: Trained, positions: np.ndarray, shown: np.ndarray, groups: Groups, state: State) -> Markup:
    """The part in view as a table, whose links lead into its parts: the map for those who do not see or point."""
    left, top, right, bottom = state.zoom or (0.0, 0.0, 1.0, 1.0)
    columns, rows = WORDS
    table = opened.dataset.items
    kind = next(iter(facets(opened.dataset)), None) if not state.colour or state.colour in COLOURINGS else state.colour
    kinds = None if kind is None else table[kind].astype(str).to_numpy()
    body: list[list[Markup | str]] = []
    for j in range(rows):
        for i in range(columns):
            cell = (
                left + (right - left) * i / columns, top + (bottom - top) * j / rows,
                left + (right - left) * (i + 1) / columns, top + (bottom - top) * (j + 1) / rows,
            )  # fmt: skip
            items = shown[inside(positions[shown], cell)]
            if not len(items):
                continue
            name = f"row {j + 1}, column {i + 1}"
            frequent = ""
            if kinds is not None:
                values, counts = np.unique(kinds[items], return_counts=True)
                frequent = f"{values[counts.argmax()]} ({counts.max():,})"
            links = Markup('<a href="?{}">zoom in<span class="unseen"> on {}</span></a>').format(
                state.address(zoom=cell), name
            )
            # A part that reaches beyond the map holds no more than what lies on it.
            part = tuple(float(np.clip(x, 0, 1)) for x in cell)
            links += Markup(' <a href="?{}">choose<span class="unseen"> {}</span></a>').format(
                state.address(region=part), name
            )
            body.append([name, f"{len(items):,}", frequent, describe_item(opened.dataset, int(items[0]))[0], links])
    heads: list[tuple[Markup | str, bool, str]] = [
        ("where", False, ""), ("items", True, ""), (f"most frequent {(kind or '').replace('_', ' ')}", False, ""),
        ("most popular", False, ""), (Markup('<span class="unseen">go on</span>'), False, ""),
    ]  # fmt: skip
    whole = Markup('<p><a href="?{}">The whole map</a></p>').format(state.address(zoom=())) if state.zoom else ""
    caption = "What lies where in the part of the map that is in view"
    return Markup('<details id="imgrec-map-words"><summary>The map in words</summary>{}{}</details>').format(
        whole, table_html(caption, heads, body)
    )


def _counts(opened: Trained, chosen: np.ndarray, shown: np.ndarray, state: State) -> Markup:
    """How many of what was chosen have which attributes, beside all that is on the map; and where to go with them."""
    lines = []
    for column in list(facets(opened.dataset))[:TOLD]:
        values = opened.dataset.items[column].astype(str)
        here, all_ = values.iloc[chosen].value_counts(), values.iloc[shown].value_counts()
        told = Markup(", ").join(
            Markup('<a href="?{}">{}</a> {:,} of {:,}').format(
                state.address(where=(*state.where, (column, str(value)))), value, int(count), int(all_[str(value)])
            )
            for value, count in here.head(TOLD).items()
        )
        lines.append(Markup("<dt>{}</dt><dd>{}</dd>").format(column.replace("_", " "), told))
    views = [("Recommend these alone", {"view": "recommendations"})]
    if state.other:
        group = {"view": "compare", "group": "map: chosen part"}
        views.append(("Compare the runs for those who bought these", group))
    views.append(("Choose nothing", {"region": ()}))  # type: ignore[dict-item]  # as `State.address` takes it
    links = Markup().join(
        Markup('<a class="like-button" href="?{}">{}</a>').format(state.address(**changes), text)
        for text, changes in views
    )
    return Markup("<dl>{}</dl>{}").format(Markup().join(lines), actions_html(links))
