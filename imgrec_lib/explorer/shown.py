"""What views are made of: galleries, and text and tables as HTML beside them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from markupsafe import Markup, escape

from imgrec_lib.data.dataset import describe_item, latest_items
from imgrec_lib.gallery.gallery import Gallery
from imgrec_lib.gallery.rows import Cell, Row
from imgrec_lib.serving import Trained


@runtime_checkable
class Shown(Protocol):
    """A part of a view."""

    def html(
        self, size: int = 96, *, style: bool = True, link: Callable[[int], str] | None = None
    ) -> Markup:  # pragma: no cover
        """As HTML, see `gallery_html`."""
        ...


@dataclass(frozen=True)
class Text:
    """Text or ready-made HTML in a view."""

    text: str | Markup

    def html(self, size: int = 96, *, style: bool = True, link: Callable[[int], str] | None = None) -> Markup:
        """The HTML itself; plain text becomes a paragraph."""
        if isinstance(self.text, Markup):
            return self.text
        return Markup('<p class="note">{}</p>').format(self.text)


@dataclass(frozen=True, eq=False)
class Beside:
    """Galleries beside each other, where the page is wide enough."""

    parts: tuple[Gallery, ...]

    def html(self, size: int = 96, *, style: bool = True, link: Callable[[int], str] | None = None) -> Markup:
        """See `gallery_html`."""
        inner = Markup().join(
            Markup("<div>{}</div>").format(each.html(size, style=style, link=link)) for each in self.parts
        )
        return Markup('<div class="beside">{}</div>').format(inner)


def short(name: str) -> str:
    """A long id with its middle left out, such as that of H&M's customers, which has 64 digits."""
    return name if len(name) <= 20 else f"{name[:8]}…{name[-4:]}"


def user_name(opened: Trained, user: int) -> str:
    """A user in a title."""
    return f"User {short(str(opened.dataset.user_ids[user]))}"


def cell_of(opened: Trained, item: int, score: float | None = None, mark: str = "") -> Cell:
    """An item with its name, category and score."""
    return Cell(int(item), describe_item(opened.dataset, int(item)), None if score is None else float(score), mark)


def history_row(opened: Trained, user: int, most: int) -> Row:
    """What a user bought, the latest first."""
    history = latest_items(opened.dataset, user)
    title = f"Bought {len(history)} {'item' if len(history) == 1 else 'items'}"
    return Row(
        title + (f", {most} of them shown" if len(history) > most else ""),
        tuple(cell_of(opened, int(item)) for item in history[:most]),
    )


def actions_html(links: Markup) -> Markup:
    """Links as a row of buttons."""
    return Markup('<p class="actions">{}</p>').format(links)


def table_html(caption: str, columns: list[tuple[Markup | str, bool, str]], rows: list[list[Markup | str]]) -> Markup:
    """A table.

    Args:
        caption: what it is, also for those who hear it.
        columns: of each its heading, whether it holds numbers, and the order in which it sorts the rows ("ascending",
            "descending" or "").
        rows: the cells.
    """

    def cell(tag: str, content: Markup | str, is_number: bool, order: str = "") -> Markup:
        return Markup("<{tag}{number}{sort}>{content}</{tag}>").format(
            tag=Markup(tag),
            number=Markup(' class="number"') if is_number else "",
            sort=Markup(' aria-sort="{}"').format(order) if order else "",
            content=escape(content),
        )

    head = Markup().join(cell("th", *column) for column in columns)
    body = Markup().join(
        Markup("<tr>{}</tr>\n").format(
            Markup().join(cell("td", each, column[1]) for each, column in zip(row, columns, strict=True))
        )
        for row in rows
    )
    return Markup(
        '<div class="wide-table" tabindex="0" role="region" aria-label="{caption}"><table>'
        '<caption class="unseen">{caption}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    ).format(caption=caption, head=head, body=body)
