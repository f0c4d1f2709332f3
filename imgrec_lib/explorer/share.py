"""Share: one page of what is shown that needs nothing else, and still filters, sorts and goes from run to run."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
from markupsafe import Markup

from imgrec_lib.data.dataset import describe_item
from imgrec_lib.errors import InputError
from imgrec_lib.explorer.opened import Runs
from imgrec_lib.explorer.page import run_name, settled, style
from imgrec_lib.explorer.search import facets
from imgrec_lib.explorer.shown import user_name
from imgrec_lib.explorer.state import State
from imgrec_lib.explorer.views import VIEWS, user_of

HERE = Path(__file__).parent
RUNS = 5
"""Runs in a shared page, at most: each is opened for it."""
RESULTS = 40
"""Results a row, at least: there must be something to filter."""

_PAGE = Markup("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; \
script-src 'unsafe-inline'">
<title>{title}</title><style>:root {{ color-scheme: light dark; }}
body {{ margin: 0; background: light-dark(#ffffff, #15181c); }}
{style}</style></head><body><main class="imgrec-explorer"><h1>{title}</h1><div class="line" id="controls"></div>
<p role="status" id="told"></p>{sections}</main>
<script type="application/json" id="data">{data}</script><script>{script}</script></body></html>
""")


def shared_page(runs: Runs, state: State) -> str:
    """A page of what is shown, without any reference to the outside.

    Args:
        runs: the runs.
        state: what is shown. The page also has other runs on the same data: the second one, those that are open, and
            the best, five in all.

    Raises:
        InputError: see `Runs.open`.
    """
    state, _ = settled(runs, state)
    opened = runs.open(state.run)
    same = [run.name for run in runs.on_the_same_data(state.run)]
    wanted = [state.run, state.other, *(name for name in same if runs.is_open(name)), *same]
    names = [name for name in dict.fromkeys(wanted) if name][:RUNS]
    sections, titles = [], {}
    for name in names:
        other = state.run if name == state.other else state.other
        here = replace(state, run=name, other=other, number=max(state.number, RESULTS), search="")
        titles[name] = run_name(runs.by_name[name])
        try:
            parts = Markup().join(each.html(state.size, style=False) for each in VIEWS[state.view](runs, here))
        except InputError as error:
            parts = Markup('<p class="note">{}</p>').format(str(error))
        sections.append(
            Markup('<section data-run="{}" aria-label="{}"{}>{}</section>').format(
                name, titles[name], Markup("" if name == state.run else " hidden"), parts
            )
        )
    # Each picture is in the page once, however often it is shown.
    pictures: dict[str, int] = {}

    def once(match: re.Match[str]) -> str:
        return f'data-picture="{pictures.setdefault(match[1], len(pictures))}"'

    body = re.sub(r'src="(data:image/jpeg;base64,[^"]+)"', once, Markup().join(sections))
    items = np.unique([int(item) for item in re.findall(r'data-item="(\d+)"', body)])
    table = opened.dataset.items
    columns = list(facets(opened.dataset))
    data = {
        "run": state.run, "titles": titles, "pictures": list(pictures), "columns": columns,
        "where": dict(state.where),
        "items": {
            str(item): {
                "name": describe_item(opened.dataset, int(item))[0],
                "popularity": int(opened.popularity[item]),
                **{f"where.{column}": str(table[column].iat[item]) for column in columns},
            }
            for item in items
        },
    }  # fmt: skip
    view = state.view.capitalize()
    title = f"{view}: {user_name(opened, user_of(opened, state))}, {opened.dataset.name}"
    return str(
        _PAGE.format(
            title=title, style=Markup(style()), sections=Markup(body),
            # In a script element nothing but its own end needs care.
            data=Markup(json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")),
            script=Markup((HERE / "share.js").read_text(encoding="utf-8")),
        )
    )  # fmt: skip
