"""The users of a run in a table, and whom one run serves better than another, with what tells these users apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from imgrec_lib.data.dataset import Dataset
from imgrec_lib.errors import InputError, unknown_name
from imgrec_lib.evaluation import user_metrics
from imgrec_lib.explorer.item_map import inside, positions_of, spaces_of
from imgrec_lib.explorer.ranking import rank
from imgrec_lib.explorer.shown import Beside, Shown, Text, cell_of, history_row, short, table_html, user_name
from imgrec_lib.explorer.state import State
from imgrec_lib.gallery.gallery import Gallery
from imgrec_lib.gallery.rows import Row
from imgrec_lib.results.significance import paired_differences
from imgrec_lib.results.trials import metric_heading
from imgrec_lib.serving import Trained

PAGE = 50
"""Users a page of the table."""
RESAMPLES = 2_000
"""Resamples of an interval in the explorer, where an answer shall not keep anyone waiting."""
SHOWN = 3
"""Users of either side whose pictures are shown."""
BEFORE = 8
"""Earlier purchases of each that are shown."""
LISTED = 8
"""Recommended items of each run that are shown of a user of a group."""
METRICS = ("auc", "ndcg@10", "hr@10", "recall@20", "mrr@10")
"""By which users can be compared."""
COUNTS = ("purchases", "place", "popularity")
HISTORIES = (0, 1, 2, 5, 10, 20)
POPULARITIES = (0, 1, 5, 20)
MOST_GROUPS = 12


@lru_cache(16)
def users_of(opened: Trained) -> pd.DataFrame:
    """The users with a test item, and how well a run serves them.

    Returns:
        Indexed by user index: `id`, `purchases` (in training), `place` (of the best placed test item, from 1; a tie
        counts half, rounded down; NaN where a list of another program ends before it), `item` (the index of that test
        item), `popularity` (its training interactions), and the metrics of `user_metrics` under the protocol `exact`.
    """
    table = opened.run.per_user
    metrics = user_metrics(table)
    metrics.index = pd.Index(table["user"].to_numpy()[~table["user"].duplicated()])
    place = table["exact/higher"] + table["exact/tied"] // 2 + 1
    best = table.assign(place=place).sort_values(["user", "place"], kind="stable").drop_duplicates("user")
    best = best.set_index("user")
    users = best.index.to_numpy()
    # Of lists that another program made only some metrics can be known, and no place behind their end.
    told = opened.run.metrics["exact"]
    metrics = metrics.mask(np.array([[told.get(str(name)) is None for name in metrics]]).repeat(len(metrics), 0))
    place = best["place"]
    if opened.run.record.stage == "lists":
        place = place.where(best["exact/higher"] < best["exact/candidates"])
    known = pd.DataFrame(
        {
            "id": opened.dataset.user_ids[users].astype(str),
            "purchases": best["history_length"],
            "place": place,
            "item": best["item"],
            "popularity": best["item_popularity"],
        },
        index=best.index,
    )
    return known.join(metrics)


def table_of_users(opened: Trained, second: Trained | None, state: State) -> list[Shown]:
    """All users with a test item, sorted and filtered by any metric.

    Args:
        opened: the run.
        second: a run to compare with; then a column says by how much the first one is better by `state.metric`.
        state: see `State.sort`, `least`, `most`, `page`.

    Raises:
        InputError: an unknown column.
    """
    table = users_of(opened).drop(columns=["item"])
    if second is not None:
        metric = _metric(state.metric)
        better = f"{metric_heading(metric)} less {second.title}"
        table[better] = table[metric] - users_of(second)[metric]
    column = state.sort.removeprefix("-")
    if column not in table:
        column = "auc"
    falling = state.sort.startswith("-")
    shown = table
    if column != "id":
        values = pd.to_numeric(table[column])
        keep = np.ones(len(table), bool)
        if state.least is not None:
            keep &= (values >= state.least).to_numpy()
        if state.most is not None:
            keep &= (values <= state.most).to_numpy()
        shown = table[keep]
    shown = shown.sort_values(column, ascending=not falling, kind="stable", na_position="last")
    pages = max(1, -(-len(shown) // PAGE))
    page = min(state.page, pages)
    rows = shown.iloc[PAGE * (page - 1) : PAGE * page]

    columns = [str(name) for name in shown]

    def heading(name: str) -> tuple[Markup | str, bool, str]:
        here = name == column
        address = state.address(sort=f"-{name}" if here and not falling else name, page=1)
        arrow = (" ▼" if falling else " ▲") if here else ""
        text = Markup('<a href="?{}">{}{}</a>').format(address, metric_heading(name), arrow)
        return text, name != "id", ("descending" if falling else "ascending") if here else ""

    def cell(name: str, value: object, user: str) -> Markup | str:
        if name == "id":
            address = state.address(user=user, view="recommendations", item="")
            return Markup('<a href="?{}" title="{}">{}</a>').format(address, user, short(user))
        if isinstance(value, float | np.floating) and np.isnan(value):
            return "—"
        return f"{value:,.0f}" if name in COUNTS else f"{value:.3f}"

    body = [[cell(name, row[name], str(row["id"])) for name in columns] for row in rows.to_dict("records")]
    bounds = Markup(
        '<form class="bounds">'
        '<label>least {column}<input type="number" step="any" name="least" value="{least}"></label>'
        '<label>most {column}<input type="number" step="any" name="most" value="{most}"></label></form>'
    ).format(
        column=metric_heading(column),
        least="" if state.least is None else f"{state.least:g}",
        most="" if state.most is None else f"{state.most:g}",
    )
    steps = Markup()
    if pages > 1:
        steps = Markup("<p>Page {:,} of {:,}{}{}</p>").format(
            page,
            pages,
            _link(" ◂ before", state.address(page=page - 1)) if page > 1 else "",
            _link(" next ▸", state.address(page=page + 1)) if page < pages else "",
        )
    title = f"{len(shown):,} of {len(table):,} users with a test item, by {metric_heading(column)}"
    heading_text = Markup("<p><b>{}</b>. A heading sorts, and once more the other way round.</p>").format(title)
    return [Text(heading_text + bounds + table_html(title, [heading(name) for name in columns], body) + steps)]


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two runs, user by user.

    Attributes:
        values: one row a user with a value of both runs, by user index: `first`, `second`, and for each kind of group
            ("history", "popularity", "category") the user's.
        whole: the row of all users, as in `groups`.
        groups: by kind and group: `users`, `first`, `second` (means), `difference`, `low`, `high` (the 95 % interval of
            its mean by a paired bootstrap over users), `wins`, `ties`, `losses` of the first run.
    """

    values: pd.DataFrame
    whole: pd.Series
    groups: pd.DataFrame


@lru_cache(8)
def compare_users(first: Trained, second: Trained, metric: str = "auc") -> Comparison:
    """Whom one run serves better than another.

    Args:
        first, second: runs on the same data.
        metric: one of `METRICS`.

    Raises:
        InputError: an unknown metric, or no user who has a value of both.
    """
    a, b = users_of(first), users_of(second)
    both = pd.DataFrame({"first": a[_metric(metric)], "second": b[metric]}).dropna()
    if both.empty:
        raise InputError(f"there is no user for whom both {first.title} and {second.title} have a value of {metric}.")
    known = a.loc[both.index]
    both["history"] = _bands(known["purchases"], HISTORIES, "purchases")
    cold = {"0 purchases": "no purchase in training (cold)"}
    both["popularity"] = _bands(known["popularity"], POPULARITIES, "purchases").replace(cold)
    both["category"] = _categories(first.dataset, known["item"].to_numpy())
    rows = {}
    for kind in ("history", "popularity", "category"):
        frequent = both[kind].value_counts().index[:MOST_GROUPS] if kind == "category" else both[kind].unique()
        order = frequent if kind == "category" else sorted(frequent, key=_least)
        for name in order:
            if name:
                rows[kind, str(name)] = _difference(both[both[kind] == name])
    groups = pd.DataFrame.from_dict(rows, orient="index")
    groups.index = pd.MultiIndex.from_tuples(rows) if rows else groups.index
    return Comparison(both, _difference(both), groups)


def comparison_of_users(first: Trained, second: Trained, state: State) -> list[Shown]:
    """Wins, ties and losses of all users and of groups of them, and the users of a group with their pictures."""
    a, b = users_of(first), users_of(second)
    known = [name for name in METRICS if a[name].notna().any() and b[name].notna().any()]
    if not known:
        raise InputError(f"{first.title} and {second.title} have no metric in common: choose another run to compare.")
    metric = state.metric if _metric(state.metric) in known else known[0]
    found = _with_part(compare_users(first, second, metric), first, state)
    whole = found.whole
    names = (first.title, second.title) if first.title != second.title else (first.run.name, second.run.name)
    holds = whole["low"] > 0 or whole["high"] < 0
    better = names[0] if whole["difference"] > 0 else names[1]
    verdict = (
        f"{better} serves the users better by {metric_heading(metric)}"
        if holds
        else f"By {metric_heading(metric)} the two cannot be told apart over all users"
    )
    sentence = Markup(
        "<p><b>{verdict}</b>: {first} {a:.3f}, {second} {b:.3f}, difference {d:+.4f} (95 % interval {low:+.4f} to "
        "{high:+.4f}); of {n:,} users {first} serves {wins:,} better, {second} {losses:,}, and {ties:,} the same.</p>"
    ).format(
        verdict=verdict, first=names[0], second=names[1], a=whole["first"], b=whole["second"], d=whole["difference"],
        low=whole["low"], high=whole["high"], n=int(whole["users"]), wins=int(whole["wins"]),
        losses=int(whole["losses"]), ties=int(whole["ties"]),
    )  # fmt: skip
    options = Markup().join(
        Markup('<option value="{}"{}>{}</option>').format(
            each, Markup(" selected") if each == metric else "", metric_heading(each)
        )
        for each in known
    )
    choice = Markup('<form><label>Compared by<select name="metric">{}</select></label></form>').format(options)
    body: list[list[Markup | str]] = []
    titles = {
        "history": "history of",
        "popularity": "test item with",
        "category": "test item of",
        "map": "test item in the",
    }
    for key, row in found.groups.iterrows():
        kind, name = str(key[0]), str(key[1])  # type: ignore[index]  # the index has two levels
        group = f"{kind}: {name}"
        name += " of the map" if kind == "map" else ""
        link = _link(f"{titles[kind]} {name}", state.address(group="" if state.group == group else group))
        told = row["low"] > 0 or row["high"] < 0
        body.append(
            [
                link + (Markup(" <b>(shown below)</b>") if state.group == group else ""),
                f"{int(row['users']):,}",
                f"{row['first']:.3f}",
                f"{row['second']:.3f}",
                Markup("<b>{:+.3f}</b>").format(row["difference"]) if told else f"{row['difference']:+.3f}",
                f"{row['low']:+.3f} to {row['high']:+.3f}",
                f"{int(row['wins']):,} / {int(row['ties']):,} / {int(row['losses']):,}",
            ]
        )
    columns: list[tuple[Markup | str, bool, str]] = [
        ("users with", False, ""), ("users", True, ""), (names[0], True, ""), (names[1], True, ""),
        ("difference", True, ""), ("95 % interval", True, ""), ("wins / ties / losses", True, ""),
    ]  # fmt: skip
    note = Markup(
        "<p>Bold: the interval leaves zero out. Each interval is about its own group alone: of twenty groups that do "
        "not differ, one seems to. A group's name shows its users below.</p>"
    )
    table = table_html(f"{names[0]} against {names[1]}, by groups of users", columns, body)
    return [Text(sentence + choice + table + note), *_brushed(first, second, names, found, state)]


def _with_part(found: Comparison, first: Trained, state: State) -> Comparison:
    """With the users whose test item lies in the chosen part of the map as one more group, where a part is chosen."""
    if not state.region or not spaces_of(first):
        return found
    items = users_of(first).loc[found.values.index, "item"].to_numpy()
    mine = inside(positions_of(first, state)[items], state.region)
    values = found.values.assign(map=np.where(mine, "chosen part", ""))
    if not mine.any():
        return replace(found, values=values)
    row = _difference(values[mine]).to_frame().T.set_axis(pd.MultiIndex.from_tuples([("map", "chosen part")]))
    return replace(found, values=values, groups=pd.concat([row, found.groups]))


def _brushed(first: Trained, second: Trained, names: Sequence[str], found: Comparison, state: State) -> list[Shown]:
    """The users of the chosen group for whom the two runs differ most, with the places of their test items."""
    kind, _, name = state.group.partition(": ")
    values = found.values
    if state.group:
        if kind not in values or not (values[kind] == name).any():
            raise unknown_name("group of users", state.group, [f"{k}: {n}" for k, n in found.groups.index])
        values = values[values[kind] == name]
    order = (values["first"] - values["second"]).sort_values(ascending=False, kind="stable")
    a, b = users_of(first), users_of(second)
    shown: list[Shown] = []
    runs = (first, second)
    for title, chosen in (
        (f"Served better by {names[0]}", order[order > 0].head(SHOWN)),
        (f"Served better by {names[1]}", order[order < 0].tail(SHOWN)[::-1]),
    ):
        rows = []
        for user in chosen.index:
            held = cell_of(first, int(a.loc[user, "item"]), mark="test item")
            history = history_row(first, int(user), BEFORE)
            heading = (
                f"{user_name(first, int(user))}: test item {_place(a, user)} by {names[0]}, "
                f"{_place(b, user)} by {names[1]}; bought before"
            )
            rows.append(Row(heading, (held, *history.cells)))
        links = Markup(" ").join(
            Markup('<a class="like-button" href="?{}">{}</a>').format(
                state.address(user=str(a.loc[user, "id"]), item=""), user_name(first, int(user))
            )
            for user in chosen.index
        )
        where = f", of those of the group {state.group}" if state.group else ""
        if rows:
            for place, (row, user) in enumerate(zip(rows, chosen.index, strict=True)):
                shown.append(Gallery("" if place else title + where, (row,), first.dataset.images))
                if state.group:
                    lists = [_listed(run, int(user), name, state) for run, name in zip(runs, names, strict=True)]
                    shown.append(Beside(tuple(lists)))
            shown.append(Text(links))
    return shown


def _listed(opened: Trained, user: int, name: str, state: State) -> Gallery:
    """What a run recommends a user, with the test items among it marked."""
    test = opened.dataset.test.of(user)
    cells = [
        cell_of(opened, int(item), mark="test item" if item in test else "")
        for item in rank(opened, user, state).items[: min(state.number, LISTED)]
    ]
    return Gallery("", (Row(f"{name} recommends", tuple(cells)),), opened.dataset.images)


def _place(users: pd.DataFrame, user: Any) -> str:
    place = users.loc[user, "place"]
    return "not listed" if pd.isna(place) else f"number {place:,.0f}"


def _difference(values: pd.DataFrame) -> pd.Series:
    pair = values[["first", "second"]]
    found = paired_differences(pair, resamples=RESAMPLES)
    more = pair["first"] - pair["second"]
    return pd.Series(
        {
            "users": len(pair), "first": pair["first"].mean(), "second": pair["second"].mean(),
            "difference": found.mean[0, 1], "low": found.low[0, 1], "high": found.high[0, 1],
            "wins": int((more > 0).sum()), "ties": int((more == 0).sum()), "losses": int((more < 0).sum()),
        }
    )  # fmt: skip


def _bands(values: pd.Series, starts: Sequence[int], unit: str) -> pd.Series:
    """The band of each value, in words: "0 purchases", "2 to 4 purchases", "20 purchases or more"."""
    names = []
    for place, start in enumerate(starts):
        last = starts[place + 1] - 1 if place + 1 < len(starts) else None
        what = unit.removesuffix("s") if start == last == 1 else unit
        names.append(
            f"{start} {what}"
            if start == last
            else f"{start} {unit} or more"
            if last is None
            else f"{start} to {last} {unit}"
        )
    band = np.searchsorted(starts, values.to_numpy(), side="right") - 1
    return pd.Series(np.array(names, dtype=object)[band], index=values.index)


def _least(name: str) -> int:
    """The number with which a band's name begins; that of items without any is 0."""
    first = name.split()[0]
    return int(first) if first.isdigit() else 0


def _categories(dataset: Dataset, items: np.ndarray) -> list[str]:
    if dataset.categories is None:
        return [""] * len(items)
    codes, names = dataset.categories
    return [names[code] for code in codes[items]]


def _metric(name: str) -> str:
    if name not in METRICS:
        raise unknown_name("metric", name, METRICS)
    return name


def _link(text: str, address: str) -> Markup:
    return Markup('<a href="?{}">{}</a>').format(address, text)
