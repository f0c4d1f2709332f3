"""A table's frame as Markdown, HTML, LaTeX or CSV."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import pandas as pd
from markupsafe import Markup, escape

from imgrec_lib.errors import unknown_name
from imgrec_lib.results.comparison import HOLDS
from imgrec_lib.results.paper import PAPER
from imgrec_lib.results.trials import ORACLE

if TYPE_CHECKING:
    from IPython.display import HTML

MISSING = "—"
MINUS = "\N{MINUS SIGN}"

Kind = Literal["markdown", "html", "latex", "csv"]


class Value(NamedTuple):
    """A formatted value of a table.

    Attributes:
        text: the value.
        spread: "± sd", an interval, or nothing.
        place: among the rows: 1 best, 2 second, 0 neither.
        holds: a difference that holds.
        ours: whether it comes from our runs.
    """

    text: str
    spread: str = ""
    place: int = 0
    holds: bool = False
    ours: bool = True


def format_table(frame: pd.DataFrame, kind: Kind = "markdown", *, links: Mapping[str, str] | None = None) -> str:
    """A table as text.

    Measured values have four decimals and "± sd" where there are several trials. In each measured column the best value
    is bold and the second underlined, equal values as printed together, unless most rows share them; the oracle takes
    no part, nor does a table of one row. A difference has its sign, its interval where the frame has one, and an
    asterisk where it holds.

    Args:
        frame: a frame of `tables`, or any other frame: then all its values are plain.
        kind: "markdown" (GitHub's), "html" (escaped, headers with scope), "latex" (booktabs) or "csv" (all digits, no
            marks).
        links: addresses by row label, for HTML: where the row's numbers come from. The label leads there, and each of
            its numbers; these are no stops of the tab key, for they all lead to the same place.

    Raises:
        InputError: unknown kind.
    """
    if kind == "csv":
        flat = frame.copy()
        if frame.columns.nlevels > 1:
            flat.columns = pd.Index([" ".join(part for part in column if part) for column in frame.columns])
        return str(flat.to_csv(lineterminator="\n"))
    writers: dict[str, Callable[[list[str], list[str], list[list[Value]], Mapping[str, str]], str]] = {
        "markdown": _markdown,
        "html": _html,
        "latex": _latex,
    }
    if kind not in writers:
        raise unknown_name("kind of table", kind, [*writers, "csv"])
    headings = list(dict.fromkeys(column[0] if isinstance(column, tuple) else column for column in frame.columns))
    columns = [_column(frame, heading) for heading in headings]
    labels = [str(label) for label in frame.index]
    body = [[column[row] for column in columns] for row in range(len(labels))]
    return writers[kind]([str(frame.index.name or ""), *headings], labels, body, links or {})


def show_table(frame: pd.DataFrame) -> HTML:
    """`format_table` as a cell's result in Jupyter."""
    from IPython.display import HTML

    return HTML(format_table(frame, "html"))


def _column(frame: pd.DataFrame, heading: str) -> list[Value]:
    if (heading, "difference") in frame.columns:
        return _differences(frame.loc[:, heading])
    if (heading, "mean") not in frame.columns:
        plain = frame[heading, ""] if frame.columns.nlevels > 1 else frame[heading]
        return [Value(_plain(value), ours=heading != PAPER) for value in plain.tolist()]
    means, deviations = frame[heading, "mean"].tolist(), frame[heading, "sd"].tolist()
    texts = [MISSING if math.isnan(mean) else f"{mean:.4f}" for mean in means]
    compete = [text for text, label in zip(texts, frame.index, strict=True) if label != ORACLE and text != MISSING]
    best = sorted(set(compete), key=float, reverse=True)[:2] if len(compete) > 1 else []
    # What most of many rows share (all but one have no hit, say) is no distinction.
    places = {text: place for place, text in enumerate(best, 1) if compete.count(text) <= max(2, len(compete) / 2)}
    return [
        Value(
            text,
            "" if math.isnan(deviation) else f"± {deviation:.4f}",
            places.get(text, 0) if label != ORACLE else 0,
        )
        for text, deviation, label in zip(texts, deviations, frame.index, strict=True)
    ]


def _differences(columns: Any) -> list[Value]:
    rows = columns.to_dict("records")
    return [
        Value(
            _signed(row["difference"]),
            f"[{_signed(row['low'])}, {_signed(row['high'])}]" if "low" in row else "",
            holds=bool(row.get("holds", False)),
        )
        for row in rows
    ]


def _signed(value: float) -> str:
    """Four decimals with the sign (a true minus); a difference that rounds to zero has none."""
    if math.isnan(value):
        return MISSING
    text = f"{value:+.4f}"
    return text[1:] if float(text) == 0 else text.replace("-", MINUS)


def _plain(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return MISSING
    if isinstance(value, float):
        return f"{value:,.0f}" if value.is_integer() or abs(value) >= 1000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in GitHub's Markdown; the first column stands to the left, the others to the right.

    Args:
        head: the headings.
        rows: the cells of each row, as many as there are headings; Markdown in them stays.
    """
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _markdown(head: list[str], labels: list[str], body: list[list[Value]], links: Mapping[str, str]) -> str:
    def text(value: str) -> str:
        return html.escape(value, quote=False).replace("|", "\\|").replace("\n", " ")

    def cell(value: Value) -> str:
        marks = {0: "{}", 1: "**{}**", 2: "<ins>{}</ins>"}
        star = f" \\{HOLDS}" if value.holds else ""
        return f"{marks[value.place].format(text(value.text))}{star} {value.spread}".strip()

    rows = ([text(label), *map(cell, cells)] for label, cells in zip(labels, body, strict=True))
    return markdown_table([text(name) for name in head], rows)


def _html(head: list[str], labels: list[str], body: list[list[Value]], links: Mapping[str, str]) -> Markup:
    def cell(value: Value, row: str) -> Markup:
        marks = {0: "{}", 1: "<strong>{}</strong>", 2: "<u>{}</u>"}
        text = Markup(marks[value.place]).format(value.text)
        if row in links and value.ours and value.text != MISSING:
            text = Markup('<a class="number" tabindex="-1" href="{}">{}</a>').format(links[row], text)
        if value.holds:
            text += Markup('<span class="holds" title="holds">{}</span>').format(HOLDS)
        if value.spread:
            text += Markup(" <small>{}</small>").format(value.spread)
        return Markup("<td>{}</td>").format(text)

    def label(value: str) -> Markup:
        return Markup('<a href="{}">{}</a>').format(links[value], value) if value in links else escape(value)

    heads = Markup().join(Markup('<th scope="col">{}</th>').format(name) for name in head)
    rows = Markup().join(
        Markup('<tr><th scope="row">{}</th>{}</tr>\n').format(
            label(name), Markup().join(cell(value, name) for value in cells)
        )
        for name, cells in zip(labels, body, strict=True)
    )
    return Markup('<table class="imgrec-table">\n<thead><tr>{}</tr></thead>\n<tbody>\n{}</tbody>\n</table>\n').format(
        heads, rows
    )


_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
        "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "†": r"$\dagger$", "—": "---",
        "“": "``", "”": "''", MINUS: "$-$", "<": "$<$", ">": "$>$", "|": r"\textbar{}", "≤": r"$\leq$", "…": r"\dots{}",
    }
)  # fmt: skip


def latex_text(text: str) -> str:
    """Plain text with LaTeX's special characters escaped."""
    return text.translate(_LATEX)


def _latex(head: list[str], labels: list[str], body: list[list[Value]], links: Mapping[str, str]) -> str:
    def cell(value: Value) -> str:
        marks = {0: "{}", 1: r"\textbf{{{}}}", 2: r"\underline{{{}}}"}
        star = r"\textsuperscript{*}" if value.holds else ""
        return f"{marks[value.place].format(latex_text(value.text))}{star} {latex_text(value.spread)}".strip()

    lines = [f"\\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}", "\\toprule"]
    lines += [" & ".join(map(latex_text, head)) + r" \\", "\\midrule"]
    lines += [
        " & ".join([latex_text(label), *map(cell, cells)]) + r" \\" for label, cells in zip(labels, body, strict=True)
    ]
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"]) + "\n"
