"""The explorer as HTML: a function of the runs and the state, for the page, the notebook and what is shared."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from imgrec_lib.errors import InputError
from imgrec_lib.explorer.card import item_card
from imgrec_lib.explorer.item_map import spaces_of
from imgrec_lib.explorer.meaning import by_meaning
from imgrec_lib.explorer.opened import Runs, find_item, user_order
from imgrec_lib.explorer.ranking import described, rank
from imgrec_lib.explorer.search import facets, find_users, index_of
from imgrec_lib.explorer.shown import Shown, Text, cell_of, short
from imgrec_lib.explorer.state import COLOURINGS, COLUMN, POPULARITY, SEEN, USER_ORDERS, State
from imgrec_lib.explorer.views import VIEWS, user_of
from imgrec_lib.gallery.gallery import Gallery
from imgrec_lib.gallery.html import STYLE as GALLERY_STYLE
from imgrec_lib.gallery.rows import Row
from imgrec_lib.runs import Run
from imgrec_lib.serving import Trained

logger = logging.getLogger(__name__)
HERE = Path(__file__).parent
HITS = 24
"""Items that a search shows, at most."""


@cache
def style() -> str:
    """The explorer's style."""
    return GALLERY_STYLE + (HERE / "explorer.css").read_text(encoding="utf-8")


@cache
def gallery_style() -> Markup:
    """The style of galleries, as an element; that of the explorer around them is in `explorer.css`."""
    return Markup("<style>{}</style>").format(Markup(GALLERY_STYLE))


@cache
def _template(name: str) -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )  # fmt: skip
    environment.filters["short"] = short
    return environment.get_template(name)


@dataclass(frozen=True)
class Answer:
    """What belongs to a state.

    Attributes:
        html: the explorer's inside.
        state: the state that is shown, in which what the data do not have is left out.
        sentence: what is shown, in words.
        parts: what is shown.
    """

    html: Markup
    state: State
    sentence: str
    parts: Sequence[Shown]

    @cached_property
    def view(self) -> Markup:
        """The view alone, with its sentence: what stands where nothing can be asked any more."""
        shown = Markup().join(each.html(self.state.size, style=False) for each in self.parts)
        return Markup('<div class="imgrec-explorer imgrec-saved"><p>{}</p>{}</div>').format(self.sentence, shown)


def answer(runs: Runs, state: State) -> Answer:
    """The explorer at a state.

    A user, item, filter or second run that the data do not have is left out, and a note says so; a view that cannot be
    shown is a sentence in its place, and so is a run that cannot be opened, below the list of all runs.
    """
    try:
        state, notes = settled(runs, state)
    except InputError as error:
        return _unopened(runs, state, str(error))
    opened = runs.open(state.run)
    user = user_of(opened, state)
    parts = _parts(runs, state)
    shown = Markup().join(each.html(state.size, style=False, link=_link(opened, state)) for each in parts)
    hits = _hits(opened, user, state) if state.search else Markup()
    card = Markup()
    if state.item:
        card = item_card(opened, user, find_item(opened.dataset, state.item), state)
    sentence = _sentence(opened, user, state)
    html = _template("explorer.html").render(
        state=state, name=run_name(opened.run), second=run_name(runs.by_name[state.other]) if state.other else "",
        title=state.view.capitalize(), sentence=sentence, notes=notes, shown=shown, hits=hits, card=card,
        chips=_chips(state), **_bar(runs, opened, user, state),
    )  # fmt: skip
    return Answer(Markup(html), state, sentence, (*([Text(hits)] if hits else []), *parts))


def _unopened(runs: Runs, state: State, error: str) -> Answer:
    """What is left where the run cannot be opened: why, and the list from which another one is chosen."""
    run = runs.by_name.get(state.run) or runs.by_name[runs.best]
    sentence = f"{error} The list under Model has the other runs."
    html = _template("unopened.html").render(name=run_name(run), groups=_groups(runs, None, state), sentence=sentence)
    return Answer(Markup(html), state, sentence, ())


def settled(runs: Runs, state: State) -> tuple[State, list[str]]:
    """A state of which the data have every part, and what was left out, in sentences.

    Raises:
        InputError: the run cannot be opened.
    """
    notes = []
    if state.run and state.run not in runs.by_name:
        notes.append(f"There is no run {state.run}: this is the best one that sees pictures.")
        state = replace(state, run="")
    state = replace(state, run=state.run or runs.best)
    opened = runs.open(state.run)
    table = opened.dataset.items
    if state.other and (
        state.other not in runs.by_name
        or runs.by_name[state.other].record.dataset.fingerprint != opened.dataset.fingerprint
        or state.other == state.run
    ):
        if state.other != state.run:
            notes.append(f"Run {state.other} is not on the same data, and is compared no more.")
        state = replace(state, other="")
    try:
        runs.open(state.other or state.run)
    except InputError as error:
        notes.append(f"{error} Nothing is compared with it.")
        state = replace(state, other="")
    if state.user and state.user not in opened.users:
        found = find_users(opened.dataset, state.user, 2)
        exact = str(opened.dataset.user_ids[found[0]]) if len(found) else ""
        if not exact:
            notes.append(f"No user's id has {state.user!r} in it: this is the first user with a test item.")
        elif len(found) > 1:
            notes.append(f"Several users' ids have {state.user!r} in them: this is the first one.")
        state = replace(state, user=exact)
    if state.item and state.item not in opened.items:
        notes.append(f"The data have no item {state.item!r}.")
        state = replace(state, item="")
    kept = [(c, v) for c, v in state.where if c in table and (table[c].astype(str) == v).any()]
    if len(kept) < len(state.where):
        notes.append("Filters that these data do not have were left out.")
        state = replace(state, where=tuple(kept))
    if state.region and not spaces_of(opened):
        notes.append(f"{opened.title} has no map: the part of it that was chosen was left out.")
        state = replace(state, region=())
    if state.space != "learned" and state.space not in spaces_of(opened):
        notes.append(f"{opened.title} has no map by {state.space}.")
        state = replace(state, space="learned", region=(), zoom=())
    if state.colour and state.colour not in (*COLOURINGS, *table):
        notes.append(f"The data have no column {state.colour!r} to colour the map by.")
        state = replace(state, colour="")
    if state.view not in VIEWS:
        notes.append(f"There is no view {state.view!r}.")
        state = replace(state, view="recommendations")
    return state, notes


def _parts(runs: Runs, state: State) -> Sequence[Shown]:
    try:
        return VIEWS[state.view](runs, state)
    except InputError as error:
        return [Text(Markup('<p class="note">{}</p>').format(str(error)))]
    except Exception as error:  # a page must not end in a traceback; the log has it
        logger.exception("the explorer failed")
        told = Markup('<p role="alert">This cannot be shown: {}: {}</p>').format(type(error).__name__, str(error))
        return [Text(told)]


def _link(opened: Trained, state: State) -> Any:
    return lambda item: f"?{state.address(item=str(opened.item_ids[item]))}"


def _hits(opened: Trained, user: int, state: State) -> Markup:
    """What a search has found: users whose id has the text in it, and items with their pictures."""
    index = index_of(opened.dataset)
    items = index.items(state.search, described(opened, state))
    users = find_users(opened.dataset, state.search, 8) if len(state.search.strip()) > 2 else np.empty(0, int)
    close, images = state.address(search=""), opened.dataset.images
    parts = []
    if len(users):
        links = Markup(", ").join(
            Markup('<a href="?{}" title="{}">{}</a>').format(state.address(user=each, search=""), each, short(each))
            for each in opened.dataset.user_ids[users].astype(str)
        )
        parts.append(Markup("<p>Users: {}</p>").format(links))
    if len(items):
        places = rank(opened, user, state).places
        cells = []
        for item in items[:HITS].tolist():
            cell = cell_of(opened, item)
            place = (f"number {places[item]:,} for this user",) if places[item] else ()
            cells.append(replace(cell, caption=(*cell.caption, *place)))
        title = f"{len(items):,} {'item has' if len(items) == 1 else 'items have'} “{state.search}”"
        title += f", the best {HITS} are shown" if len(items) > HITS else ""
        gallery = Gallery(title, (Row("", tuple(cells)),), images)
        parts.append(gallery.html(min(state.size, 96), style=False, link=_link(opened, state)))
    described_by = by_meaning(opened, state.search.strip()) if len(state.search.strip()) > 2 else None
    if described_by is not None:
        admitted = described(opened, state)
        cells = [
            cell_of(opened, item, cosine)
            for item, cosine in zip(*(each.tolist() for each in described_by), strict=True)
            if admitted[item]
        ][: HITS // 2]
        gallery = Gallery(f"Nearest in meaning to “{state.search}”, by cosine", (Row("", tuple(cells)),), images)
        parts.append(gallery.html(min(state.size, 96), style=False, link=_link(opened, state)))
    if not len(items) and not len(users):
        like = [
            Markup('<a href="?{}">{}</a>').format(state.address(search=word), word) for word in index.like(state.search)
        ]
        ask = Markup(" Did you mean {}?").format(Markup(" or ").join(like)) if like else ""
        filtered = " among those that the filters admit" if _chips(state) else ""
        parts.append(Markup('<p class="note">Nothing has “{}”{}.{}</p>').format(state.search, filtered, ask))
    parts.append(Markup('<p><a href="?{}">Close the search</a></p>').format(close))
    return Markup('<div class="hits">{}</div>').format(Markup().join(parts))


def _sentence(opened: Trained, user: int, state: State) -> str:
    measured = opened.run.metrics["exact"]["auc"]
    auc = "" if measured is None else f", test AUC {measured:.3f}"
    return f"{opened.title} on {opened.dataset.name}{auc}; user {short(str(opened.dataset.user_ids[user]))}"


def _chips(state: State) -> list[dict[str, str]]:
    """The filters that are on, each with the address without it."""
    default = State()
    chips = [
        {
            "text": f"{column}: {value}",
            "address": state.address(where=tuple(pair for pair in state.where if pair != (column, value))),
        }
        for column, value in state.where
    ]
    for name in ("popularity", "seen"):
        if getattr(state, name) != getattr(default, name):
            chips.append({"text": getattr(state, name), "address": state.address(**{name: getattr(default, name)})})
    if state.region:
        chips.append({"text": "chosen on the map", "address": state.address(region=())})
    return chips


def run_name(run: Run) -> str:
    """What a run is called where one is chosen."""
    details = _details(run)
    return f"{run.record.title}{', ' + details if details else ''}"


def _details(run: Run) -> str:
    """What tells a run from others of its model."""
    record = run.record
    profile = record.profile if record.profile != "default" else ""
    return ", ".join(each for each in (record.control or "", profile, f"seed {record.seed}") if each)


def _bar(runs: Runs, opened: Trained, user: int, state: State) -> dict[str, Any]:
    """What the controls need."""
    order = user_order(opened, state.order)
    places = np.flatnonzero(order == user)
    place = int(places[0]) if len(places) else 0

    def at(other: int) -> str:
        return state.address(user=str(opened.dataset.user_ids[order[other % len(order)]]), page=1)

    where = dict(state.where)
    return {
        "groups": _groups(runs, opened.run, state),
        "without_other": state.address(other=""),
        "flipped": state.address(run=state.other or state.run, other=state.run, **_elsewhere(state)),
        "earlier": at(place - 1), "later": at(place + 1), "place": place + 1, "users": len(order),
        "bought": int(opened.dataset.train.history_lengths[user]), "user_id": str(opened.dataset.user_ids[user]),
        "orders": [(each, each) for each in USER_ORDERS], "user_table": state.address(view="users"),
        "views": [
            {"title": name.capitalize(), "here": name == state.view, "address": state.address(view=name)}
            for name in VIEWS
        ],
        "seen": [(each, each) for each in SEEN], "popularity": [(each, each) for each in POPULARITY],
        "facets": [
            {
                "name": COLUMN + column, "column": column.replace("_", " "), "chosen": where.get(column, ""),
                "options": [("", "any"), *((value, f"{value} ({count:,})") for value, count in counts.items())],
            }
            for column, counts in facets(opened.dataset).items()
        ],
    }  # fmt: skip


def _elsewhere(state: State) -> dict[str, Any]:
    """What another model leaves behind: it has learnt another map, on which a part of this one means nothing."""
    return {"region": (), "zoom": ()} if state.space == "learned" else {}


def _groups(runs: Runs, shown: Run | None, state: State) -> list[dict[str, Any]]:
    """The runs to choose from, by their data, and to compare with the one that is shown."""
    return [
        {"name": name, "runs": [_choice(run, shown, state) for run in runs.best_first(group)]}
        for name, group in runs.datasets.items()
    ]


def _choice(run: Run, shown: Run | None, state: State) -> dict[str, Any]:
    record = run.record
    auc = record.metrics["exact"]["auc"] if "exact" in record.metrics else None
    same = shown is not None and record.dataset.fingerprint == shown.record.dataset.fingerprint
    here = shown is not None and run.name == shown.name
    other = run.name == state.other
    compared = {"other": ""} if other else {"other": run.name, "view": "compare"}
    return {
        "title": record.title, "details": f"{_details(run)} [{run.name}]", "here": here, "other": other,
        "validation": "—" if record.validation.auc is None else f"{record.validation.auc:.4f}",
        "auc": "—" if auc is None else f"{auc:.4f}", "address": state.address(run=run.name, **_elsewhere(state)),
        "compare": "" if here or not same else state.address(**compared),
    }  # fmt: skip
