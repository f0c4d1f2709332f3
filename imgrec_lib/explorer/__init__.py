"""The explorer: see what a finished run recommends, to whom, and why.

A module is imported when one of its names is first used, so that the page of `imgrec explore` is there at once;
`__init__.pyi` says where each name lives.
"""

from typing import Any

import lazy_loader

from imgrec_lib.extras import require
from imgrec_lib.options import check_call

require("notebooks")

_loaded, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    offered = globals()[name] = check_call(_loaded(name))  # lazy_loader has put it there unchecked
    return offered
