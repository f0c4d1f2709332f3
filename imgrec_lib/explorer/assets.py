"""The scripts of the explorer in a browser, which its page and its widget share."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

from imgrec_lib.extras import require

HERE = Path(__file__).parent


@cache
def script() -> str:
    """The explorer's side in the browser: one module, for a widget has one file."""
    return "".join((HERE / name).read_text(encoding="utf-8") for name in ("map.js", "explorer.js"))


@cache
def library() -> bytes:
    """deck.gl, which draws the map, as a script that sets the global `deck`; it comes inside the package pydeck.

    Raises:
        InputError: pydeck is not installed.
    """
    require("notebooks")
    found = find_spec("pydeck")
    assert found is not None and found.origin is not None
    source = (Path(found.origin).parent / "nbextension" / "static" / "index.js").read_bytes()
    # A page with a module loader of its own, as Voila's, would else be given it as an anonymous module.
    return b"(() => { let define, exports, module;\n" + source + b"\n})();\n"
