"""The explorer's names, and the module that each comes from."""

from .app import Explorer
from .dots import groups_of, pictures, points
from .example import example_runs
from .item_map import ItemMap, Live, inside, positions_of, project
from .meaning import by_meaning
from .new_item import NewItem, item_anew, keep_picture, new_item, picture_path
from .occlusion import Occlusion, occlude
from .opened import Runs, find_item, find_user, user_order
from .page import Answer, answer
from .people import compare_users, users_of
from .ranking import Ranking, candidates, closest_purchases, rank, score_parts
from .search import Index, facets, find_users, index_of
from .server import serve
from .share import shared_page
from .similar import similar_users
from .state import POPULARITY, PROJECTIONS, SEEN, USER_ORDERS, State
from .views import VIEWS, item_of, user_of

__all__ = [
    "POPULARITY",
    "PROJECTIONS",
    "SEEN",
    "USER_ORDERS",
    "VIEWS",
    "Answer",
    "Explorer",
    "Index",
    "ItemMap",
    "Live",
    "NewItem",
    "Occlusion",
    "Ranking",
    "Runs",
    "State",
    "answer",
    "by_meaning",
    "candidates",
    "closest_purchases",
    "compare_users",
    "example_runs",
    "facets",
    "find_item",
    "find_user",
    "find_users",
    "groups_of",
    "index_of",
    "inside",
    "item_anew",
    "item_of",
    "keep_picture",
    "new_item",
    "occlude",
    "picture_path",
    "pictures",
    "points",
    "positions_of",
    "project",
    "rank",
    "score_parts",
    "serve",
    "shared_page",
    "similar_users",
    "user_of",
    "user_order",
    "users_of",
]
