"""The explorer in a notebook: a widget whose state is an address, and whose last view stays when the kernel is gone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anywidget
import traitlets
from IPython.display import HTML, display
from markupsafe import Markup

from imgrec_lib.errors import InputError
from imgrec_lib.explorer.new_item import keep_picture
from imgrec_lib.explorer.opened import Runs
from imgrec_lib.explorer.page import answer, style
from imgrec_lib.explorer.share import shared_page
from imgrec_lib.explorer.state import State


class Explorer(anywidget.AnyWidget):
    """The live explorer. A link or a control makes another address; what is shown follows from the address alone.

    Args:
        runs: the runs to look into.
        state: what to show first.

    Attributes:
        address: the state that is asked for, see `State.address`.
        shown: the state that is shown.
        html: what is shown.
    """

    _esm = Path(__file__).parent / "explorer.js"
    _css = style()
    address = traitlets.Unicode().tag(sync=True)
    shown = traitlets.Unicode().tag(sync=True)
    html = traitlets.Unicode().tag(sync=True)

    def __init__(self, runs: Runs, state: State | None = None) -> None:
        super().__init__(address=(state or State()).address())
        self.runs = runs
        self._kept: Any = None
        self._view = Markup()
        self._show()
        self.observe(lambda _: self._show(), "address")
        self.on_msg(self._received)

    @property
    def state(self) -> State:
        """What is shown."""
        return State.at(self.shown)

    def _show(self) -> None:
        try:
            found = answer(self.runs, State.at(self.address))
        except InputError as error:
            self.html = Markup('<p role="alert">{}</p>').format(str(error))
            return
        self._view = found.view
        with self.hold_sync():
            self.shown = found.state.address()
            self.html = found.html
        if self._kept is not None:
            self._kept.update(self.static())

    def static(self) -> HTML:
        """The view without any widget: it hides itself where the widget lives, and stays where no kernel runs."""
        return HTML(Markup("<style>{}</style>{}").format(Markup(style()), self._view))

    def _received(self, _: Any, content: dict[str, Any], buffers: list[Any]) -> None:
        if content.get("kind") == "picture":
            try:
                name = keep_picture(bytes(buffers[0]))
                address = State.at(self.address).address(picture=name, view="new picture")
                self.send({"kind": "go", "address": address})
            except InputError as error:
                self.send({"kind": "said", "text": str(error)})
        elif content.get("kind") == "share":
            state = State.at(self.address)
            self.send({"kind": "file", "name": "imgrec.html", "text": shared_page(self.runs, state)})

    def show(self) -> None:
        """Display the widget, and beside it its last view, which is kept with the notebook."""
        display(self)
        self._kept = display(self.static(), display_id=True)
