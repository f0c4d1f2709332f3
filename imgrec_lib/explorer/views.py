"""The explorer's views: functions of the opened runs and the state, whose galleries a page or a report shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from markupsafe import Markup
from scipy import sparse
from torch import Tensor

from imgrec_lib.data.dataset import describe_item
from imgrec_lib.errors import InputError
from imgrec_lib.evaluation.neighbours import nearest_to, search_neighbours
from imgrec_lib.explorer.dots import embedding_map
from imgrec_lib.explorer.new_item import item_anew, new_item
from imgrec_lib.explorer.opened import Runs, find_item, find_user
from imgrec_lib.explorer.people import comparison_of_users, table_of_users
from imgrec_lib.explorer.ranking import (
    Ranking,
    attended_attributes,
    closest_purchases,
    rank,
    score_parts,
)
from imgrec_lib.explorer.saw import what_it_saw
from imgrec_lib.explorer.shown import Shown, Text, cell_of, history_row, user_name
from imgrec_lib.explorer.similar import people_like
from imgrec_lib.explorer.state import State
from imgrec_lib.gallery.gallery import Gallery
from imgrec_lib.gallery.rows import Cell, Row
from imgrec_lib.serving import Trained
from imgrec_lib.serving.pictures import picture_set

EXPLAINED = 5
"""Recommended items for which the purchases that pull them up are shown as pictures."""


def user_of(opened: Trained, state: State) -> int:
    """Index of the state's user; by default the first one with a test item."""
    if state.user:
        return find_user(opened.dataset, state.user)
    return int(next(iter(opened.dataset.test.users), 0))


def item_of(opened: Trained, state: State) -> int:
    """Index of the state's item; by default the first one that is recommended, or the first of all."""
    if state.item:
        return find_item(opened.dataset, state.item)
    ranked = rank(opened, user_of(opened, state), state).items
    return int(ranked[0]) if len(ranked) else 0


def _second_of(runs: Runs, first: Trained, name: str) -> Trained:
    """Another run, on the same data.

    Raises:
        InputError: it was made on other data.
    """
    second = runs.open(name)
    if first.dataset.fingerprint != second.dataset.fingerprint:
        raise InputError(f"run {name} was made on other data than {first.run.name}: choose two runs on the same.")
    return second


def recommendations(runs: Runs, state: State) -> list[Gallery]:
    """What a user bought, what the run recommends, where the held-out item stands, and why."""
    opened = runs.open(state.run)
    dataset, user = opened.dataset, user_of(opened, state)
    ranking = rank(opened, user, state)
    shown = ranking.items[: state.number]
    held = dataset.test.of(user)
    more = np.append(shown, held[~np.isin(held, shown)])
    parts = score_parts(opened, user, more)
    marks = dict.fromkeys(dataset.validation.of(user), "validation item") | dict.fromkeys(held, "test item")
    attention = attended_attributes(opened, user, more)
    cells = [
        Cell(
            int(item),
            (*describe_item(dataset, int(item)), *attention[place : place + 1]),
            float(ranking.scores[item]) if np.isfinite(ranking.scores[item]) else None,
            marks.get(int(item), ""),
            tuple((name, float(values[place])) for name, values in parts.items()),
        )
        for place, item in enumerate(more)
    ]
    title = f"{opened.title} recommends"
    if len(held):
        places = "; ".join(_place(ranking, int(item)) for item in held)
        title += f"; the held-out {'item is' if len(held) == 1 else 'items are'} {places}"
    rows = [history_row(opened, user, state.number), Row(title, tuple(cells))]
    galleries = [Gallery(user_name(opened, user), tuple(rows), dataset.images)]
    asked = [find_item(dataset, state.item)] if state.item else []
    explained = np.array(list(dict.fromkeys([*asked, *shown[:EXPLAINED].tolist()])), dtype=np.int64)
    because = closest_purchases(opened, user, explained, 8)
    if because:
        rows = [
            Row(
                f"{describe_item(dataset, int(item))[0]} is like these purchases",
                (
                    Cell(int(item), describe_item(dataset, int(item)), mark="recommended"),
                    *(cell_of(opened, other, value) for other, value in zip(*like, strict=True)),
                ),
            )
            for item, like in zip(explained, because, strict=True)
        ]
        galleries.append(Gallery("The purchases that pull items up", tuple(rows), dataset.images))
    return galleries


def comparison(runs: Runs, state: State) -> list[Shown]:
    """Two runs: whom each serves better, and for one user what only one of them found, and how places move."""
    if not state.other:
        raise InputError("There is nothing to compare with yet: open Model and choose 'compare' beside another run.")
    first = runs.open(state.run)
    second = _second_of(runs, first, state.other)
    found, shown = comparison_of_users(first, second, state), side_by_side(first, second, state)
    # The users of a group are shown next to the table in which it was chosen.
    return [*found, *shown] if state.group else [found[0], *shown, *found[1:]]


def side_by_side(first: Trained, second: Trained, state: State) -> list[Gallery]:
    """Two runs for one user: what only one of them found, what both did, and how places move."""
    user = user_of(first, state)
    a, b = rank(first, user, state), rank(second, user, state)
    top_a, top_b = a.items[: state.number], b.items[: state.number]
    names = (first.title, second.title) if first.title != second.title else (first.run.name, second.run.name)
    test = first.dataset.test.of(user)

    def row(title: str, items: np.ndarray, mine: Ranking, other: Ranking, other_name: str) -> Row:
        cells = []
        for item in items.tolist():
            places = f"number {mine.places[item]:,} ({other.places[item]:,})"
            mark = "test item" if item in test else ""
            cells.append(Cell(item, (*describe_item(first.dataset, item)[:1], places), float(mine.scores[item]), mark))
        return Row(f"{title}: {len(cells)} (in brackets the place by {other_name})", tuple(cells))

    common = top_a[np.isin(top_a, top_b)]
    rows = (
        row(f"Only {names[0]} found", top_a[~np.isin(top_a, top_b)], a, b, names[1]),
        row(f"Only {names[1]} found", top_b[~np.isin(top_b, top_a)], b, a, names[0]),
        row("Both found", common, a, b, names[1]),
    )
    title = f"{user_name(first, user)}: the first {state.number} of {names[0]} and of {names[1]}"
    if len(test):
        places = "; ".join(f"{_place(a, item)}, and {_place(b, item)}" for item in test.tolist())
        title += f"; the held-out {'item is' if len(test) == 1 else 'items are'} {places}"
    return [Gallery(title, (history_row(first, user, state.number), *rows), first.dataset.images)]


def neighbours(runs: Runs, state: State) -> list[Gallery]:
    """The items nearest to one: by each set of features, as the runs have learnt it, and by who bought both."""
    opened = runs.open(state.run)
    item = item_of(opened, state)
    others = {runs.before_fine_tuning(opened.run.name): ", before fine-tuning", state.other: ""}
    rows = []
    for name, vectors in opened.feature_sets.items():
        rows.append(_nearest_row(opened, vectors, item, state.number, f"By {name}"))
    for name, remark in {opened.run.name: "", **others}.items():
        if not name:
            continue
        run = _second_of(runs, opened, name)
        if run.learned is None:
            rows.append(Row(f"{run.title} has no vectors for items: its score is no inner product", ()))
        else:
            rows.append(_nearest_row(opened, run.learned, item, state.number, f"As {run.title} has learnt{remark}"))
    rows.append(_bought_together(opened, item, state.number))
    query = Row("The item", (cell_of(opened, item, mark="query"),))
    return [Gallery("Nearest items", (query, *rows), opened.dataset.images)]


def _cold_start(runs: Runs, state: State) -> list[Shown]:
    """A picture as an item that nobody has bought: what is near it, who would like it, where it would stand."""
    opened = runs.open(state.run)
    by = picture_set(opened)
    caption: tuple[str, ...]
    if state.picture:
        new, caption = new_item(opened, state.picture), ("your picture",)
    elif state.item:
        item = find_item(opened.dataset, state.item)
        new, caption = item_anew(opened, item), describe_item(opened.dataset, item)[:1]
    else:
        return [
            UPLOAD,
            Text("Give a photograph of yours, or choose an item, to see it as an item that nobody has bought."),
        ]
    dataset, user = opened.dataset, user_of(opened, state)
    cell = Cell(-1, caption, mark="new", picture=new.shown)
    rows = [Row("The new item", (cell,))]
    if by in opened.feature_sets:
        rows.append(_nearest_row(opened, opened.feature_sets[by], new.feature, state.number, f"Nearest by {by}"))
    if new.learned is not None:
        rows.append(
            _nearest_row(opened, opened.learned, new.learned, state.number, f"Nearest as {opened.title} sees it")
        )
    galleries: list[Shown] = [
        UPLOAD,
        Gallery("The picture as an item that nobody has bought", tuple(rows), dataset.images),
    ]
    if new.places is None or new.scores is None:
        title = f"{opened.title} cannot score an item by its picture: it needs {new.lacks}"
        return [*galleries, Gallery(title, (), None)]
    ranking = rank(opened, user, state)
    place = int((ranking.scores[ranking.items] > new.scores[user]).sum())
    around = ranking.items[max(0, place - 5) : place + 5]
    cells = [cell_of(opened, int(i), float(ranking.scores[i])) for i in around]
    at = min(place, 5)
    cells.insert(at, Cell(-1, caption, float(new.scores[user]), "new", picture=new.shown))
    where = Row(
        f"For {user_name(opened, user)} it would be number {place + 1:,} of {len(ranking.items) + 1:,}; "
        f"its median place over all users is {int(np.median(new.places)):,}",
        tuple(cells),
    )
    best = np.lexsort((-new.scores, new.places))[:5]
    likers = [
        Row(f"{user_name(opened, int(u))}: it would be number {new.places[u]:,}", history_row(opened, int(u), 8).cells)
        for u in best
    ]
    return [
        *galleries,
        Gallery("Where it would rank", (where,), dataset.images),
        Gallery("The users who would like it most, with what they bought", tuple(likers), dataset.images),
    ]


VIEWS: dict[str, Callable[[Runs, State], Sequence[Shown]]] = {
    "recommendations": recommendations,
    "compare": comparison,
    "users": lambda runs, state: table_of_users(
        runs.open(state.run), _second_of(runs, runs.open(state.run), state.other) if state.other else None, state
    ),
    "similar users": lambda runs, state: people_like(runs.open(state.run), user_of(runs.open(state.run), state), state),
    "neighbours": neighbours,
    "what it saw": lambda runs, state: what_it_saw(
        runs.open(state.run), user_of(runs.open(state.run), state), item_of(runs.open(state.run), state)
    ),
    "new picture": _cold_start,
    "map": lambda runs, state: embedding_map(runs.open(state.run), user_of(runs.open(state.run), state), state),
}
"""What can be looked at: each a function of the runs and the state alone."""

UPLOAD = Text(Markup('<form><label>A photograph <input type="file" accept="image/*" data-upload></label></form>'))


def _place(ranking: Ranking, item: int) -> str:
    place = int(ranking.places[item])
    return f"number {place:,} of {len(ranking.items):,}" if place else "not among these candidates"


def _nearest_row(
    opened: Trained, vectors: Tensor | np.ndarray | None, query: int | Tensor, number: int, title: str
) -> Row:
    """Nearest items of an item, or of a vector."""
    assert vectors is not None
    if isinstance(query, int):
        near = search_neighbours(vectors, [query], number)
        found, similarity = near.items[0], near.similarity[0]
    else:
        found, similarity = nearest_to(vectors, query, number)
    return Row(title, tuple(cell_of(opened, int(i), float(s)) for i, s in zip(found, similarity, strict=True)))


@lru_cache(2)
def _purchases(opened: Trained) -> sparse.csc_matrix:
    """(n_users, n_items): 1 for each training interaction."""
    train = opened.dataset.train
    ones = np.ones(len(train), np.float32)
    return sparse.csr_matrix((ones, train.items, train.indptr), (train.n_users, train.n_items)).tocsc()


def _bought_together(opened: Trained, item: int, number: int) -> Row:
    """The items with the largest cosine between the sets of their buyers."""
    matrix = _purchases(opened)
    if not opened.popularity[item]:
        return Row("Bought together: nobody has bought the item in training", ())
    together = np.asarray((matrix.T @ matrix[:, [item]]).todense()).ravel()
    cosine = together / np.sqrt(np.maximum(opened.popularity, 1) * float(opened.popularity[item]))
    cosine[item] = 0
    best = np.argsort(-cosine, kind="stable")[:number]
    cells = [cell_of(opened, int(i), float(cosine[i])) for i in best if cosine[i] > 0]
    return Row("Bought by the same users", tuple(cells))
