"""The card of an item: its pictures, what is known of it, who bought it, what is near it, and its place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from imgrec_lib.data.dataset import Columns, Dataset, describe_item
from imgrec_lib.evaluation.neighbours import search_neighbours
from imgrec_lib.explorer.ranking import attended_attributes, rank, score_parts
from imgrec_lib.explorer.shown import actions_html, cell_of, short, user_name
from imgrec_lib.explorer.state import State
from imgrec_lib.gallery.gallery import Gallery
from imgrec_lib.gallery.rows import Row
from imgrec_lib.gallery.thumbnails import data_uri, thumbnail
from imgrec_lib.serving import Trained

SIDE = 640
"""The longer side of the card's pictures, in pixels."""
BUYERS = 8
NEAR = 6


def item_card(opened: Trained, user: int, item: int, state: State) -> Markup:
    """An item as HTML.

    Args:
        opened: the run.
        user: whose score and place are told.
        item: item index.
        state: what is shown; the card's links lead on from it.
    """
    dataset = opened.dataset
    name = describe_item(dataset, item)[0]
    actions = Markup().join(
        Markup('<a class="like-button" href="?{}">{}</a>').format(state.address(**changes), text)
        for text, changes in (
            ("Neighbours", {"view": "neighbours"}),
            ("What it saw", {"view": "what it saw"}),
            ("As a new item", {"view": "new picture", "picture": ""}),
            ("Close", {"item": "", "view": "recommendations" if state.view == "what it saw" else state.view}),
        )
    )
    return Markup("<h2>{}</h2>{}{}{}{}{}{}").format(
        name, _pictures(dataset, item, name), actions_html(actions), _standing(opened, user, item, state),
        _known(dataset, item), _buyers(opened, item, state), _near(opened, item, state),
    )  # fmt: skip


def _pictures(dataset: Dataset, item: int, name: str) -> Markup:
    sources = []
    if dataset.images is not None and dataset.images.shows(item):
        sources.append(data_uri(thumbnail(dataset.images, item, SIDE)))
    if dataset.further_pictures is not None:
        images = dataset.further_pictures.images
        low, high = dataset.further_pictures.items.searchsorted([item, item + 1])
        sources += [data_uri(thumbnail(images, row, SIDE)) for row in range(low, high) if images.present[row]]
    if not sources:
        return Markup('<p class="note">This item has no picture.</p>')
    return Markup('<div class="pictures">{}</div>').format(
        Markup().join(
            Markup('<img src="{}" alt="{}{}">').format(source, name, f", picture {place + 1}" if place else "")
            for place, source in enumerate(sources)
        )
    )


def _standing(opened: Trained, user: int, item: int, state: State) -> Markup:
    ranking = rank(opened, user, state)
    place = int(ranking.places[item])
    where = f"number {place:,} of {len(ranking.items):,}" if place else "not among the items that the filters admit"
    if item in opened.dataset.train.of(user):
        where = "bought already"
    elif item in opened.dataset.test.of(user):
        where += ", and a test item of this user"
    pairs = [
        (user_name(opened, user), where),
        *([("score", f"{ranking.scores[item]:.3f}")] if np.isfinite(ranking.scores[item]) else []),
    ]
    pairs += [(name, f"{float(value[0]):+.3f}") for name, value in score_parts(opened, user, np.array([item])).items()]
    pairs += [("attention", text) for text in attended_attributes(opened, user, np.array([item]))]
    return _list(pairs)


def _known(dataset: Dataset, item: int) -> Markup:
    pairs = []
    for column in dataset.items.columns:
        value = dataset.items[column].iat[item]
        if pd.notna(value) and str(value).strip():  # type: ignore[arg-type]  # a cell, no table
            pairs.append(("id" if column == Columns.ITEM else str(column), str(value)))
    return _list(pairs)


def _list(pairs: list[tuple[str, str]]) -> Markup:
    return Markup("<dl>{}</dl>").format(
        Markup().join(Markup("<dt>{}</dt><dd>{}</dd>").format(name, value) for name, value in pairs)
    )


def _buyers(opened: Trained, item: int, state: State) -> Markup:
    buyers = opened.dataset.train.users[opened.dataset.train.items == item]
    if not len(buyers):
        return Markup("<p>Nobody has bought it in training: a cold item.</p>")
    ids = [str(opened.dataset.user_ids[buyer]) for buyer in buyers[:BUYERS]]
    links = Markup(", ").join(
        Markup('<a href="?{}" title="{}">{}</a>').format(state.address(user=each), each, short(each)) for each in ids
    )
    more = f" and {len(buyers) - BUYERS:,} others" if len(buyers) > BUYERS else ""
    return Markup("<p>Bought in training by {:,}: {}{}</p>").format(len(buyers), links, more)


def _near(opened: Trained, item: int, state: State) -> Markup:
    rows = []
    spaces: dict[str, Any] = {f"Near by {name}": vectors for name, vectors in opened.feature_sets.items()}
    for title, vectors in (spaces | {"Near as learnt": opened.learned}).items():
        if vectors is not None:
            found = search_neighbours(vectors, [item], min(NEAR, len(vectors) - 1))
            rows.append(Row(title, tuple(cell_of(opened, int(near)) for near in found.items[0])))
    if not rows:
        return Markup()
    gallery = Gallery("", tuple(rows), opened.dataset.images)
    return gallery.html(72, style=False, link=lambda near: f"?{state.address(item=str(opened.item_ids[near]))}")
