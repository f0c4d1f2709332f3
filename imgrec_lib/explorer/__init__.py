"""The explorer: see what a finished run recommends, to whom, and why.

A module is imported when one of its names is first used, so that the page of `imgrec explore` is there at once;
`__init__.pyi` says where each name lives.
"""

import lazy_loader

from imgrec_lib.extras import require

require("notebooks")

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
