"""The explorer's names, and the module that each comes from."""

from .app import Explorer
from .example import example_runs
from .item_map import ItemMap, project
from .occlusion import Occlusion, occlude
from .opened import Runs, find_item, find_user
from .page import Answer, answer
from .people import compare_users
from .ranking import Ranking, rank, score_parts
from .server import serve
from .share import shared_page
from .similar import similar_users
from .state import State
from .views import VIEWS, user_of

__all__ = [
    "VIEWS",
    "Answer",
    "Explorer",
    "ItemMap",
    "Occlusion",
    "Ranking",
    "Runs",
    "State",
    "answer",
    "compare_users",
    "example_runs",
    "find_item",
    "find_user",
    "occlude",
    "project",
    "rank",
    "score_parts",
    "serve",
    "shared_page",
    "similar_users",
    "user_of",
]
