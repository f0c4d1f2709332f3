"""The explorer in a notebook: a widget whose state is an address, and whose last view stays when the kernel is gone."""

from __future__ import annotations

from typing import Any

import anywidget
import traitlets
from IPython.display import HTML, display
from markupsafe import Markup

from imgrec_lib.errors import InputError
from imgrec_lib.explorer.assets import library, script
from imgrec_lib.explorer.dots import pictures, points
from imgrec_lib.explorer.new_item import keep_picture
from imgrec_lib.explorer.opened import Runs
from imgrec_lib.explorer.page import Answer, answer, settled, style
from imgrec_lib.explorer.share import shared_page
from imgrec_lib.explorer.state import State
from imgrec_lib.explorer.views import user_of


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

    _esm = script()
    _css = style()
    address = traitlets.Unicode().tag(sync=True)
    shown = traitlets.Unicode().tag(sync=True)
    html = traitlets.Unicode().tag(sync=True)

    def __init__(self, runs: Runs, state: State | None = None) -> None:
        super().__init__(address=(state or State()).address())
        self.runs = runs
        self._kept: Any = None
        self._found: Answer | None = None
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
        self._found = found
        with self.hold_sync():
            self.shown = found.state.address()
            self.html = found.html
        if self._kept is not None:
            self._kept.update(self.static())

    def static(self) -> HTML:
        """The view without any widget: it hides itself where the widget lives, and stays where no kernel runs."""
        view = self._found.view if self._found else ""
        return HTML(Markup("<style>{}</style>{}").format(Markup(style()), view))

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
        elif content.get("kind") == "library":
            self.send({"id": content["id"]}, [library()])
        elif content.get("kind") == "points":
            state, _ = settled(self.runs, State.at(content["address"]))
            opened = self.runs.open(state.run)
            self.send({"id": content["id"]}, [points(opened, user_of(opened, state), state)])
        elif content.get("kind") == "pictures":
            self.send({"id": content["id"], "found": pictures(self.runs.open(content["run"]), content["items"])})

    def show(self) -> None:
        """Display the widget, and beside it its last view, which is kept with the notebook."""
        display(self)
        self._kept = display(self.static(), display_id=True)
