"""The explorer's page: controls around the views. What it shows is computed elsewhere; here it is only asked for."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import ipywidgets
import numpy as np
from markupsafe import Markup

from imgrec_lib.errors import InputError
from imgrec_lib.explorer.new_item import keep_picture, read_picture
from imgrec_lib.explorer.opened import USER_ORDERS, Runs, find_user, user_order
from imgrec_lib.explorer.state import POPULARITY, PROJECTIONS, SEEN, SPACES, State, freeze
from imgrec_lib.explorer.views import VIEWS, item_of, user_of
from imgrec_lib.gallery.gallery import Gallery
from imgrec_lib.gallery.html import STYLE
from imgrec_lib.gallery.live import Pictures
from imgrec_lib.runs import Run
from imgrec_lib.serving import Trained

logger = logging.getLogger(__name__)

NONE = "(none)"
ALL = "(all)"
VIEW_CONTROLS = {
    "Two models": ("other",),
    "Neighbours": ("other", "item"),
    "New picture": ("item", "upload", "take"),
    "Map": ("space", "projection"),
}
"""The controls that belong to one view; all others are always there."""


class Explorer(ipywidgets.VBox):
    """The live explorer. `state` is all that it shows; each change of a control makes the next state.

    Args:
        runs: the runs to look into.
        state: what to show first.
        notebook: notebook 09, for the command that freezes a view.
        folder: where frozen views go.
    """

    def __init__(self, runs: Runs, state: State, notebook: Path, folder: Path) -> None:
        self.runs, self.state, self.notebook, self.folder = runs, state, notebook, folder
        self._own = tempfile.TemporaryDirectory(prefix="imgrec-explore-")
        self._shown: tuple[Any, ...] = ()
        self._following = False
        self.status, self.alert, self.frozen = (ipywidgets.HTML() for _ in range(3))
        self.pictures = Pictures()
        self.controls = _controls()
        for name, control in self.controls.items():
            control.add_class(f"imgrec-{name}")
            if hasattr(control.style, "description_width"):
                control.style.description_width = "initial"
        rows = (
            ("dataset", "run"),
            ("order", "position", "user"),
            ("category", "popularity", "seen", "number", "size"),
            ("view", "freeze"),
            ("other", "item", "upload", "take", "space", "projection"),
        )
        wrap = ipywidgets.Layout(flex_flow="row wrap", align_items="center")
        boxes = [ipywidgets.HBox([self.controls[name] for name in row], layout=wrap) for row in rows]
        super().__init__([*boxes, self.frozen, self.alert, self.status, self.pictures])
        self.add_class("imgrec-explorer")
        with self._sentences():
            self._follow()
            self._show()
        self._observe()

    @property
    def opened(self) -> Trained:
        """The run that is shown."""
        return self.runs.open(self.state.run)

    def _observe(self) -> None:
        values = {
            "dataset": self._choose_dataset,
            "run": lambda value: self._change(run=value, user="", item="", category="", region=(), other=""),
            "other": lambda value: self._change(other=value),
            "order": lambda value: self._choose_position(1),
            "position": self._choose_position,
            "user": self._choose_user,
            "upload": self._upload,
            "size": lambda value: self._change(),
            "view": lambda value: self._change(),
            "space": lambda value: self._change(space=value, region=()),
            "projection": lambda value: self._change(projection=value, region=()),
        }
        plain = ("category", "popularity", "seen", "number", "item")
        values |= {name: lambda value, name=name: self._change(**{name: value}) for name in plain}
        for name, act in values.items():
            self.controls[name].observe(lambda change, act=act: self._react(act, change["new"]), "value")
        self.controls["take"].on_click(lambda _: self._react(self._take_item, None))
        self.controls["freeze"].on_click(lambda _: self._react(self._freeze, None))
        self.pictures.observe(lambda change: self._react(self._choose_item, change["new"]), "chosen")
        self.pictures.observe(lambda change: self._react(self._choose_region, change["new"]), "region")

    def _react(self, act: Any, value: Any) -> None:
        """Answer an event of the page, unless the page itself caused it."""
        if not self._following:
            with self._sentences():
                act(value)

    @contextmanager
    def _sentences(self) -> Iterator[None]:
        """An error becomes one sentence in the page."""
        self.alert.value = ""
        try:
            yield
        except InputError as error:
            self._say(str(error))
        except Exception as error:  # a page must not end in a traceback; the log has it
            logger.exception("the explorer failed")
            self._say(f"this cannot be shown: {type(error).__name__}: {error}")

    def _say(self, sentence: str) -> None:
        self._shown = ()
        text = " ".join(sentence.split())
        self.alert.value = Markup('<p role="alert" data-error style="color:#b3261e;font-weight:600">{}</p>').format(
            text
        )
        self.pictures.html, self.status.value = "", ""

    def _change(self, **fields: Any) -> None:
        """Go to the next state and show it."""
        self.state = replace(self.state, **fields)
        self.frozen.value = ""
        self._follow()
        self._show()

    def _choose_dataset(self, name: str) -> None:
        self._change(run=self.runs.datasets[name][0].name, other="", user="", item="", category="", region=())

    def _choose_position(self, position: int) -> None:
        users = user_order(self.opened, self.controls["order"].value)
        self._change(user=str(self.opened.dataset.user_ids[users[position - 1]]), item="")

    def _choose_user(self, text: str) -> None:
        user = find_user(self.opened.dataset, text)
        self._change(user=str(self.opened.dataset.user_ids[user]), item="")

    def _choose_item(self, item: int) -> None:
        if item >= 0:
            self._change(item=str(self.opened.dataset.items["item"].iloc[item]))

    def _choose_region(self, region: list[float]) -> None:
        self._change(region=tuple(region))

    def _upload(self, files: tuple[dict[str, Any], ...]) -> None:
        if files:
            pixels = read_picture(self.opened, bytes(files[0]["content"]))
            self._change(picture=str(keep_picture(pixels, Path(self._own.name))))

    def _take_item(self, _: None) -> None:
        images = self.opened.dataset.images
        if images is None:
            raise InputError(f"dataset {self.opened.dataset.name!r} has no pictures: there is none to take.")
        pixels = np.asarray(images.pixels[item_of(self.opened, self.state)])
        self._change(picture=str(keep_picture(pixels, Path(self._own.name))))

    def _freeze(self, _: None) -> None:
        frozen = freeze(self.state, self.runs.folder, self.notebook, self.folder, self.runs.root)
        self.frozen.value = Markup(
            '<p>This view is kept in <code data-parameters="{parameters}">{parameters}</code>. The command below makes '
            "of it a report without widgets, <code>{page}</code>, with the same pictures:</p>"
            '<pre data-command tabindex="0" style="white-space:pre-wrap">{command}</pre>'
        ).format(parameters=str(frozen.parameters), page=frozen.page.name, command=frozen.command)

    def _follow(self) -> None:
        """Let the controls show the state."""
        self._following = True
        try:
            opened, state, controls = self.opened, self.state, self.controls
            groups = self.runs.datasets
            dataset = next(name for name, runs in groups.items() if any(r.name == opened.run.name for r in runs))
            _options(controls["dataset"], list(groups), dataset)
            _options(controls["run"], [(_title(run), run.name) for run in groups[dataset]], opened.run.name)
            rest = [(_title(run), run.name) for run in groups[dataset] if run.name != opened.run.name]
            _options(controls["other"], [(NONE, ""), *rest], state.other)
            names = opened.categories[1] if opened.categories else []
            _options(controls["category"], [(ALL, ""), *((name, name) for name in names)], state.category)
            for name in ("popularity", "seen", "number", "space", "projection"):
                controls[name].value = getattr(state, name)
            users = user_order(opened, controls["order"].value)
            user = user_of(opened, state)
            controls["position"].max = len(users)
            places = np.flatnonzero(users == user)
            if len(places):
                controls["position"].value = int(places[0]) + 1
            controls["user"].value = str(opened.dataset.user_ids[user])
            controls["item"].value = state.item
            for each in {name for names in VIEW_CONTROLS.values() for name in names}:
                shown = each in VIEW_CONTROLS.get(controls["view"].value, ())
                controls[each].layout.display = None if shown else "none"
        finally:
            self._following = False

    def _show(self) -> None:
        """Draw the view anew if anything that it depends on has changed."""
        name, size = self.controls["view"].value, self.controls["size"].value
        view = VIEWS[name]
        key = (name, size, *(getattr(self.state, field) for field in view.fields))
        if key == self._shown:
            return
        galleries = view.show(self.runs, self.state)
        parts = [g.html(size, style=False) if isinstance(g, Gallery) else g.html() for g in galleries]
        self.pictures.set_trait("region", list(self.state.region))
        self.pictures.html = Markup('<style>{}</style><section data-view="{}">{}</section>').format(
            Markup(STYLE), name, Markup().join(parts)
        )
        opened = self.opened
        user = str(opened.dataset.user_ids[user_of(opened, self.state)])
        measured = opened.run.metrics["exact"]["auc"]
        why = "lists hold no scores" if opened.run.record.stage == "lists" else "nobody can be ranked"
        auc = f"unknown, for {why}" if measured is None else f"{measured:.3f}"
        self.status.value = Markup(
            '<p role="status" data-view="{view}" data-user="{user}" data-run="{run}">{title}, test AUC {auc}; '
            "user {user}; {words}</p>"
        ).format(view=name, user=user, run=opened.run.name, title=opened.title, auc=auc, words=name.lower())
        self._shown = key

    def _repr_mimebundle_(self, **options: Any) -> dict[str, Any]:
        static = f"{self.alert.value}{self.status.value}{self.pictures.html}"
        return super()._repr_mimebundle_(**options) | {"text/html": static}


def _controls() -> dict[str, Any]:
    """The controls by name; their values are set by `Explorer._follow`."""

    def wide() -> ipywidgets.Layout:
        return ipywidgets.Layout(width="26em")

    def fitting() -> ipywidgets.Layout:
        return ipywidgets.Layout(width="auto")

    return {
        "dataset": ipywidgets.Dropdown(description="Dataset", layout=wide()),
        "run": ipywidgets.Dropdown(description="Run", layout=wide()),
        "order": ipywidgets.Dropdown(options=USER_ORDERS, description="Users"),
        "position": ipywidgets.IntSlider(min=1, description="Place", continuous_update=False, layout=wide()),
        "user": ipywidgets.Text(description="User", placeholder="id, or a part of it", continuous_update=False),
        "category": ipywidgets.Dropdown(description="Category"),
        "popularity": ipywidgets.Dropdown(options=list(POPULARITY), description="Popularity"),
        "seen": ipywidgets.Dropdown(options=SEEN, description="Items"),
        "number": ipywidgets.IntSlider(20, 1, 60, description="Results", continuous_update=False),
        "size": ipywidgets.IntSlider(96, 48, 224, 16, description="Picture size", continuous_update=False),
        "view": ipywidgets.ToggleButtons(options=list(VIEWS)),
        "freeze": ipywidgets.Button(description="Freeze", icon="snowflake-o", tooltip="keep this view as a report"),
        "other": ipywidgets.Dropdown(description="Compare with", layout=wide()),
        "item": ipywidgets.Text(description="Item", placeholder="id, or a part of it", continuous_update=False),
        "upload": ipywidgets.FileUpload(
            accept="image/*", multiple=False, description="Upload a photograph", layout=fitting()
        ),
        "take": ipywidgets.Button(description="Take the item's picture", layout=fitting()),
        "space": ipywidgets.Dropdown(options=SPACES, description="Items as"),
        "projection": ipywidgets.Dropdown(options=PROJECTIONS, description="Projection"),
    }


def _options(control: Any, options: list[Any], value: str) -> None:
    """Give a dropdown options and value, touching only what differs."""
    if list(control.options) != options:
        control.options = options
    control.value = value


def _title(run: Run) -> str:
    record = run.record
    details = [record.control, record.profile if record.profile != "default" else "", f"seed {record.seed}"]
    return f"{record.title}, {', '.join(detail for detail in details if detail)} [{run.name}]"
