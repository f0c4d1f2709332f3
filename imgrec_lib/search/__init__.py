"""Searching hyper-parameters by validation: spaces, the journal of what was tried, and the loop."""

from imgrec_lib.options import check_calls
from imgrec_lib.search.loop import search, try_out
from imgrec_lib.search.space import check_space, read_space, space_of
from imgrec_lib.search.study import Search, Study, read_search, read_studies

__all__ = [
    "Search",
    "Study",
    "check_space",
    "read_search",
    "read_space",
    "read_studies",
    "search",
    "space_of",
    "try_out",
]

check_calls(__name__)
