"""The explorer: see what a finished run recommends, to whom, and why."""

from __future__ import annotations

from imgrec_lib.extras import require

require("notebooks")

from imgrec_lib.explorer.app import Explorer
from imgrec_lib.explorer.example import example_runs
from imgrec_lib.explorer.item_map import ItemMap, project
from imgrec_lib.explorer.new_item import NewItem, keep_picture, new_item, read_picture
from imgrec_lib.explorer.opened import USER_ORDERS, Runs, find_item, find_user, user_order
from imgrec_lib.explorer.ranking import Ranking, candidates, closest_purchases, rank, score_parts
from imgrec_lib.explorer.state import NOTEBOOK, POPULARITY, PROJECTIONS, SEEN, SPACES, Frozen, State, freeze, state_of
from imgrec_lib.explorer.views import VIEWS, item_of, report, user_of

__all__ = [
    "NOTEBOOK",
    "POPULARITY",
    "PROJECTIONS",
    "SEEN",
    "SPACES",
    "USER_ORDERS",
    "VIEWS",
    "Explorer",
    "Frozen",
    "ItemMap",
    "NewItem",
    "Ranking",
    "Runs",
    "State",
    "candidates",
    "closest_purchases",
    "example_runs",
    "find_item",
    "find_user",
    "freeze",
    "item_of",
    "keep_picture",
    "new_item",
    "project",
    "rank",
    "read_picture",
    "report",
    "score_parts",
    "state_of",
    "user_of",
    "user_order",
]
