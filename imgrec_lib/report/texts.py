"""The tables of a report as text: Markdown, LaTeX and CSV, one file each and all together."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from imgrec_lib.errors import InputError
from imgrec_lib.files import replacing_folder, write_text
from imgrec_lib.report.formats import format_table, latex_text
from imgrec_lib.report.sections import Block, Section

START, END = "<!-- results: written by imgrec report -->", "<!-- end of results -->"
"""The lines between which `insert_results` puts the main tables."""

PREAMBLE = r"""% Compiles as it stands; a single table, from the folder tables/, needs booktabs alone.
\documentclass[a4paper]{article}
\usepackage[T1]{fontenc}
\usepackage[utf8]{inputenc}
\usepackage[margin=15mm]{geometry}
\usepackage{booktabs,graphicx,longtable}
\begin{document}
"""


def write_tables(sections: Sequence[Section], out: Path) -> None:
    """Write `tables.md`, `tables.tex`, `tables.csv` and, for each table, `tables/<anchor>` as .md, .tex and .csv.

    Args:
        sections: the report's sections.
        out: the report's folder; its folder `tables` is replaced.
    """
    latex, long = [PREAMBLE], []
    with replacing_folder(out / "tables") as folder:
        for section in sections:
            latex.append(f"\\section*{{{latex_text(section.title)}}}\n{latex_text(section.lead)}\n")
            for block, frame in _framed(section):
                written = {kind: format_table(frame, kind) for kind in ("markdown", "latex", "csv")}
                write_text(folder / f"{block.anchor}.md", written["markdown"])
                write_text(folder / f"{block.anchor}.tex", written["latex"])
                write_text(folder / f"{block.anchor}.csv", written["csv"])
                latex.append(_latex_table(block, len(frame), written["latex"]))
                long += _long_form(section.title, block.title, frame)
    write_text(out / "tables.md", markdown_tables(sections, "Tables", ""))
    write_text(out / "tables.tex", "\n".join([*latex, "\\end{document}\n"]))
    table = pd.DataFrame(long, columns=["dataset", "table", "row", "column", "statistic", "value"])
    write_text(out / "tables.csv", table.to_csv(index=False, lineterminator="\n"))


def markdown_tables(sections: Sequence[Section], title: str, preamble: str) -> str:
    """All tables as one Markdown page.

    Args:
        sections: the report's sections.
        title: the page's title.
        preamble: Markdown below the title.
    """
    parts = [f"# {_markdown_text(title)}", preamble.strip()]
    for section in sections:
        parts += [
            f"## {_markdown_text(section.title)}",
            *map(_markdown_text, section.verdict),
            _markdown_text(section.lead),
        ]
        for block, frame in _framed(section):
            body = format_table(frame).rstrip()
            if block.folded:
                body = f"<details><summary>{len(frame)} rows</summary>\n\n{body}\n\n</details>"
            parts += [f"### {block.title}", block.look, body, _markdown_text(block.note)]
    return "\n\n".join(part for part in parts if part) + "\n"


def insert_results(sections: Sequence[Section], path: Path) -> None:
    """Replace what stands in a Markdown file between the lines `START` and `END` by the main table of each dataset.

    Args:
        sections: the report's sections.
        path: the file, such as a README.

    Raises:
        InputError: the file does not exist or lacks the two lines.
    """
    if not path.is_file():
        raise InputError(f"there is no file {path} to put the results into.")
    text = path.read_text(encoding="utf-8")
    before, start, rest = text.partition(f"{START}\n")
    _, end, after = rest.partition(f"{END}\n")
    if not start or not end:
        raise InputError(f"{path} lacks the lines {START!r} and {END!r}, between which the results go: add them.")
    parts = []
    for section in sections:
        for block, frame in _framed(section):
            if block.main:
                parts += [
                    _markdown_text(section.lead),
                    format_table(frame).rstrip(),
                    _markdown_text(block.note),
                ]
    write_text(path, f"{before}{start}\n" + "\n\n".join(part for part in parts if part) + f"\n\n{end}{after}")


def _framed(section: Section) -> list[tuple[Block, pd.DataFrame]]:
    return [(block, block.frame) for block in section.blocks if block.frame is not None]


def _latex_table(block: Block, rows: int, tabular: str) -> str:
    """A float that is never wider than the page; a table longer than a page as a longtable."""
    caption = latex_text(" ".join(part for part in (f"{block.title}.", block.note) if part))
    head = f"% {block.anchor}\n"
    if rows > 40:
        body = tabular.replace("{tabular}", "{longtable}")
        opening, rest = body.split("\n", 1)
        return f"{head}{{\\small\n{opening}\n\\caption{{{caption}}}\\\\\n{rest}}}\n"
    return (
        f"{head}\\begin{{table}}[htbp]\n\\centering\n\\caption{{{caption}}}\n"
        f"\\resizebox{{\\ifdim\\width>\\textwidth\\textwidth\\else\\width\\fi}}{{!}}{{%\n{tabular.rstrip()}%\n}}\n"
        "\\end{table}\n"
    )


def _long_form(dataset: str, table: str, frame: pd.DataFrame) -> list[tuple[Any, ...]]:
    keys = [column if isinstance(column, tuple) else (column, "") for column in frame.columns]
    return [
        (dataset, table, label, *key, frame.iloc[row, column])
        for row, label in enumerate(frame.index)
        for column, key in enumerate(keys)
    ]


def _markdown_text(text: str) -> str:
    """Plain text with Markdown's special characters escaped."""
    return re.sub(r"([\\`*_<>|\[\]])", r"\\\1", text)
