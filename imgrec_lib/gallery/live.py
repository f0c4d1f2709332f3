"""The live face of galleries: HTML in a widget that says which picture was chosen.

HTML with the pictures inside draws several times faster than one image widget a picture.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anywidget
import ipywidgets
import traitlets

from imgrec_lib.gallery.gallery import Gallery


class Pictures(anywidget.AnyWidget):
    """HTML whose pictures can be chosen by a click or, from the keyboard, by Tab and Enter.

    Attributes:
        html: what is shown; an element with `data-item` is a picture of that item.
        chosen: the item chosen last, -1 for none.
    """

    _esm = Path(__file__).parent / "pictures.js"
    html = traitlets.Unicode().tag(sync=True)
    chosen = traitlets.Int(-1).tag(sync=True)


class LiveGallery(ipywidgets.VBox):
    """A gallery with a slider for the size of its pictures; one is chosen by a click, or by Tab and Enter.

    Where no kernel runs, its static face stands for it.

    Args:
        gallery: what to show.
        size: side of the pictures in CSS pixels.
    """

    def __init__(self, gallery: Gallery, size: int = 96) -> None:
        self.gallery = gallery
        slider = ipywidgets.IntSlider(size, 48, 224, 16, description="Picture size", continuous_update=False)
        slider.style.description_width = "initial"
        self.pictures = Pictures(html=gallery.html(size))
        slider.observe(self._resize, "value")
        super().__init__([slider, self.pictures])

    def _resize(self, change: dict[str, Any]) -> None:
        self.pictures.html = self.gallery.html(change["new"])

    def _repr_mimebundle_(self, **options: Any) -> dict[str, Any]:
        return super()._repr_mimebundle_(**options) | {"text/html": self.gallery.html()}
