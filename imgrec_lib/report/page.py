"""The report as one HTML file that needs nothing else, and its tables and contact sheets as files beside it.

index.html             the page; opens offline, in light and dark
tables.md, tables.tex  all tables, for GitHub and for a paper
tables.csv             all numbers in long form: dataset, table, row, column, value
tables/                each table by itself as .md, .tex and .csv
galleries/             contact sheets (PNG)
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
import matplotlib
import numpy as np
import pandas as pd
import torch
from markupsafe import Markup, escape
from matplotlib.figure import Figure
from tqdm.auto import tqdm

from imgrec_lib import __version__
from imgrec_lib.data.dataset import Dataset
from imgrec_lib.errors import InputError
from imgrec_lib.evaluation import user_metrics
from imgrec_lib.features import Features
from imgrec_lib.files import replacing_folder, write_text
from imgrec_lib.models.base import InnerProduct, Scorer
from imgrec_lib.report import curves, gallery, tables
from imgrec_lib.report.gallery import Gallery
from imgrec_lib.runs import Run, find_runs, load_inputs, load_model

NEIGHBOURS = 7
QUERIES = 6
PICTURE = 112


@dataclass(frozen=True)
class Block:
    """A table, figure or gallery on the page.

    Attributes:
        anchor: its address on the page, and the name of its files.
        title: its heading.
        look: what to look at.
        body: safe HTML; empty where there is only the sentence.
        frame: the table's numbers, to be written as files too.
        note: small print below the body.
        gallery: to be written as a contact sheet too.
    """

    anchor: str
    title: str
    look: str
    body: Markup = field(default_factory=Markup)
    frame: pd.DataFrame | None = None
    note: str = ""
    gallery: Gallery | None = None


@dataclass(frozen=True)
class Section:
    """A part of the page: one dataset's results, or what all have in common."""

    anchor: str
    title: str
    lead: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Inputs:
    """What could be loaded again to draw the galleries of a dataset.

    Attributes:
        dataset: the dataset, or None.
        recommender: the run with the best validation AUC.
        embedder: of the runs with visual features, an ImgRec before any other, the one with the best validation AUC;
            None without any.
        features: features by the run's name.
        problem: a sentence where the dataset is None.
    """

    dataset: Dataset | None
    recommender: Run
    embedder: Run | None
    features: dict[str, Features | None] = field(default_factory=dict)
    problem: str = ""


def write_report(runs_folder: Path, out: Path, *, only: Collection[str] | None = None, progress: bool = True) -> Path:
    """Write the report of all finished runs below a folder.

    The data is loaded again, as each run's record says, to draw the galleries; where it is gone the page says so.
    Runs of different datasets have tables of their own. Files of an earlier report are replaced.

    Args:
        runs_folder: where the runs lie.
        out: the report's folder; made when missing.
        only: names of the run folders to report on; None for all.
        progress: show a progress bar.

    Returns:
        The path of `index.html`.

    Raises:
        InputError: the folder holds no finished run.
    """
    out = Path(out)
    groups = tables.by_dataset([run for run in find_runs(runs_folder) if only is None or run.name in only])
    loaded = [_load(runs, progress) for runs in groups]
    datasets = {inputs.dataset.fingerprint: inputs.dataset for inputs in loaded if inputs.dataset is not None}
    sections = [_sizes(groups, datasets)]
    bar = tqdm(total=len(groups), desc="report", unit="dataset", disable=not progress)
    for number, (runs, inputs) in enumerate(zip(groups, loaded, strict=True), 1):
        sections.append(_dataset_section(number, runs, inputs, out))
        bar.update()
    bar.close()
    _write_tables(sections, out)
    with replacing_folder(out / "galleries") as folder:
        for section in sections:
            for block in section.blocks:
                if block.gallery is not None:
                    block.gallery.png(folder / f"{block.anchor}.png")
    write_text(out / "index.html", _render(sections, groups))
    return out / "index.html"


def _load(runs: Sequence[Run], progress: bool) -> Inputs:
    recommender = max(runs, key=_validation)
    embedder = max(
        (run for run in runs if run.record["features"] is not None),
        key=lambda run: (run.record["model"].startswith("imgrec"), _validation(run)),
        default=None,
    )
    try:
        dataset, found = load_inputs(embedder or recommender, progress)
        features = {recommender.name: None, (embedder or recommender).name: found}
        if embedder is not None and recommender.record["features"] == embedder.record["features"]:
            features[recommender.name] = found
        elif recommender.record["features"] is not None:
            dataset, features[recommender.name] = load_inputs(recommender, progress)
    except (InputError, OSError) as error:
        return Inputs(None, recommender, embedder, problem=f"The pictures cannot be shown: {error}")
    if dataset.fingerprint != recommender.record["dataset"]["fingerprint"]:
        problem = f"The pictures cannot be shown: the data of run {recommender.name} has changed since its training."
        return Inputs(None, recommender, embedder, problem=problem)
    return Inputs(dataset, recommender, embedder, features)


def _validation(run: Run) -> float:
    return float(run.record["validation"]["auc"])


def _sizes(groups: Sequence[list[Run]], datasets: dict[str, Dataset]) -> Section:
    frame = tables.sizes_table([run for runs in groups for run in runs], datasets)
    look = (
        "Density and the share of cold items tell how hard a data set is: what nobody bought in training can be ranked "
        "by its picture alone."
    )
    return Section("data", "Data sets", "", (_table_block("sizes", "Table 1: data sets", look, frame),))


def _dataset_section(number: int, runs: list[Run], inputs: Inputs, out: Path) -> Section:
    prefix = f"{_slug(runs[0].record['dataset']['name'])}-{number}"
    rows = tables.trials(runs)
    links = {row.label: f"#{prefix}-run-{_slug(row.runs[0].name)}" for row in rows}

    def table(name: str, title: str, look: str, frame: pd.DataFrame, note: str = "") -> Block:
        return _table_block(f"{prefix}-{name}", title, look, frame, links, note)

    def figure(name: str, title: str, look: str, drawn: Figure, numbers: pd.DataFrame, column: str) -> Block:
        return Block(
            f"{prefix}-{name}", title, look, _svg(drawn, f"{prefix}-{name}", title, _in_words(numbers, column))
        )

    auc = tables.auc_table(runs)
    popularity, history = tables.popularity_table(runs), tables.history_table(runs)
    blocks = [
        table(
            "auc",
            "Results",
            "Compare within a column. A visual model earns its place by beating PopRank in AUC and by its cold AUC, "
            "where a model without pictures can only guess.",
            auc,
        )
    ]
    for title, frame in tables.paper_tables(runs).items():
        note = next(paper.note for paper in tables.PAPER_TABLES if paper.title == title)
        look = (
            f"Beside the paper's values for {tables.paper_dataset(runs)}: the difference is ours minus theirs."
            if ("paper", "") in frame.columns
            else "The models of the paper's table on this data set, for which the paper has no values."
        )
        blocks.append(
            table(_slug(title.split(":")[0]), title, look, frame, note if ("paper", "") in frame.columns else "")
        )
    blocks += [
        figure(
            "protocols",
            "Exact and sampled AUC",
            "The sampled values should stand close to the exact one; the longer the line to the open marker, the more "
            "of a model's AUC hangs on how ties are counted.",
            curves.sampled_vs_exact(runs),
            auc,
            "AUC",
        ),
        table(
            "protocols-table",
            "AUC by protocol and tie rule",
            "Ties are what cold items get from a model that only counts: there the two rules part.",
            tables.protocol_table(runs),
        ),
        table(
            "ranking-table",
            "Hits among the first ten",
            "HR@10 over a hundred candidates says little of HR@10 over the catalogue: do not compare across protocols.",
            tables.ranking_table(runs),
        ),
        figure(
            "learning",
            "Learning curves",
            "A band is one standard deviation over the trials that still train; a dot is the epoch whose weights were "
            "kept. A curve that still rises at its end would gain from more epochs.",
            curves.learning_curves(runs),
            tables.run_table(runs).groupby("model", sort=False)["validation AUC"].mean().to_frame(),
            "validation AUC",
        ),
        figure(
            "popularity",
            "AUC by popularity of the item",
            "On the left are the items that nobody or hardly anybody bought: popularity fails there, "
            "pictures need not.",
            curves.auc_by_popularity(runs),
            popularity,
            tables.measured(popularity)[0],
        ),
        table(
            "popularity-table",
            "AUC by popularity, in numbers",
            "Each heading says how many users have their test item in the band: few users, wide error.",
            popularity,
        ),
        figure(
            "history",
            "AUC by history of the user",
            "A model that learns tastes should gain from left to right; one that only counts purchases cannot.",
            curves.auc_by_history(runs),
            history,
            tables.measured(history)[0],
        ),
        table("history-table", "AUC by history, in numbers", "Each heading says how many users the band has.", history),
        table(
            "cold",
            "Cold items",
            "An AUC of 0.5 is a guess, one below it means that cold items are pushed to the end of every list.",
            tables.cold_table(runs),
        ),
        figure(
            "cost",
            "Cost and quality",
            "Up and to the left is better; the axis of seconds is logarithmic.",
            curves.cost_vs_quality(runs),
            auc,
            "AUC",
        ),
        table(
            "cost-table",
            "Cost, in numbers",
            "Seconds depend on the machine: compare models of the same device only.",
            tables.cost_table(runs),
        ),
        *_galleries(prefix, inputs),
        Block(
            f"{prefix}-runs",
            "Runs",
            "Every number above is computed from these runs; the link opens the executed notebook.",
            _runs_list(prefix, rows, out),
        ),
    ]
    record = runs[0].record["dataset"]
    title = f"{record['name']} ({record['users']:,} users, {record['items']:,} items)"
    return Section(prefix, title, tables.caption(runs), tuple(blocks))


def _galleries(prefix: str, inputs: Inputs) -> list[Block]:
    """Neighbours and recommendations as pictures, or a sentence where the data is gone."""
    if inputs.dataset is None:
        return [Block(f"{prefix}-galleries", "Galleries", inputs.problem)]
    neighbours = _neighbours(f"{prefix}-neighbours", inputs.dataset, inputs)
    return [neighbours, _recommendations(f"{prefix}-recommendations", inputs.dataset, inputs)]


def _neighbours(anchor: str, dataset: Dataset, inputs: Inputs) -> Block:
    title, run = "Nearest items", inputs.embedder
    features = None if run is None else inputs.features[run.name]
    if run is None or features is None:
        return Block(anchor, title, "No run here uses visual features, whose neighbours could be shown.")
    model, items = run.record["title"], _queries(dataset)
    notice = f" ({tables.RANDOM})" if features.random else ""
    spaces = {f"by visual features{notice}": features.values}
    look = "The best-selling item of each of the largest categories, with its nearest items by picture"
    scorer = _scorer(run, dataset, features)
    if isinstance(scorer, InnerProduct):
        spaces[f"by {model}{notice}"] = scorer.items.numpy()
        look += (
            f" and by what {model} (seed {run.record['seed']}) learned. Features find the same shape and colour; "
            "a learned embedding should find what the same people buy"
        )
    rows = [gallery.neighbour_gallery(dataset, vectors, items, NEIGHBOURS, space) for space, vectors in spaces.items()]
    return _gallery_block(anchor, f"{look}. The number is the cosine.", gallery.side_by_side(title, *rows))


def _recommendations(anchor: str, dataset: Dataset, inputs: Inputs) -> Block:
    run = inputs.recommender
    scorer = _scorer(run, dataset, inputs.features[run.name])
    title = "Recommendations to three users"
    shown = gallery.recommendation_gallery(dataset, scorer, _users(run), NEIGHBOURS + 1, title)
    look = (
        f"By {run.record['title']}, seed {run.record['seed']}, the run with the best validation AUC, to those users "
        "whose test item it ranks badly, typically and well (5th, 50th and 95th percentile of AUC). See whether the "
        "recommendations share something visible with the purchases. The number is the model's score."
    )
    return _gallery_block(anchor, look, shown)


@torch.no_grad()
def _scorer(run: Run, dataset: Dataset, features: Features | None) -> Scorer:
    times = dataset.test.times
    return load_model(run, dataset, features).scorer(None if times is None else torch.as_tensor(times))


def _queries(dataset: Dataset) -> list[int]:
    """The best-selling item of each of the largest categories; without categories, the best-selling items."""
    popularity, categories = dataset.train.popularity, dataset.categories
    order = np.argsort(-popularity, kind="stable")
    if categories is None:
        return order[:QUERIES].tolist()
    codes = categories[0]
    largest = np.argsort(-np.bincount(codes), kind="stable")[:QUERIES]
    return [int(order[codes[order] == category][0]) for category in largest]


def _users(run: Run) -> list[int]:
    """Users at the 5th, 50th and 95th percentile of the run's exact AUC, fewer where they are the same."""
    values = user_metrics(run.per_user)["auc"].dropna().sort_values(kind="stable")
    places = [round(share * (len(values) - 1)) for share in (0.05, 0.5, 0.95)]
    return list(dict.fromkeys(int(run.per_user.loc[values.index[place], "user"]) for place in places))


def _gallery_block(anchor: str, look: str, shown: Gallery) -> Block:
    return Block(anchor, shown.title, look, Markup(shown.html(PICTURE, style=False)), gallery=shown)


def _table_block(
    anchor: str, title: str, look: str, frame: pd.DataFrame, links: dict[str, str] | None = None, note: str = ""
) -> Block:
    body = Markup('<div class="scroll" role="region" tabindex="0" aria-label="{}">{}</div>').format(
        title, Markup(tables.format_table(frame, "html", links=links))
    )
    return Block(anchor, title, look, body, frame, note)


def _runs_list(prefix: str, rows: Sequence[tables.Trials], out: Path) -> Markup:
    """Every run with its seed, AUC and the link to its notebook; each row of the tables leads here."""
    cells = Markup()
    for row in rows:
        for number, run in enumerate(row.runs):
            record = run.record
            notebook = run.folder / "notebook.ipynb"
            name: str | Markup = run.name
            if notebook.exists():
                address = quote(Path(os.path.relpath(notebook, out)).as_posix())
                name = Markup('<a href="{}">{}</a>').format(address, run.name)
            anchor = Markup(' id="{}"').format(f"{prefix}-run-{_slug(run.name)}") if not number else Markup()
            cells += Markup(
                '<tr{}><th scope="row">{}</th><td class="text">{}</td><td>{}</td><td>{:.4f}</td><td>{:.4f}</td>'
                '<td class="text">{}</td><td class="text">{}</td></tr>\n'
            ).format(
                anchor,
                name,
                row.label,
                record["seed"],
                record["validation"]["auc"],
                run.metrics["exact"]["auc"],
                record["device"],
                record["finished"],
            )
    heads = Markup().join(
        Markup('<th scope="col"{}>{}</th>').format(Markup(' class="text"') if text else Markup(), name)
        for name, text in (
            ("run", True),
            ("model", True),
            ("seed", False),
            ("validation AUC", False),
            ("test AUC", False),
            ("device", True),
            ("finished (UTC)", True),
        )
    )
    return Markup(
        '<div class="scroll" role="region" tabindex="0" aria-label="Runs"><table class="imgrec-table">'
        "<thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>"
    ).format(heads, cells)


def _in_words(frame: pd.DataFrame, column: str) -> str:
    """A figure's content for those who cannot see it: one number for each row."""
    values = frame[column, "mean"] if frame.columns.nlevels > 1 else frame[column]
    return f"{column}: " + ", ".join(f"{label} {value:.4f}" for label, value in values.items()) + "."


def _svg(figure: Figure, name: str, title: str, description: str) -> Markup:
    """A figure as inline SVG: text stays text, ink takes the page's colour, ids are unique on the page."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'\s(xmlns(:\w+)?|version)="[^"]*"', "", svg, count=3)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = svg.replace("url(#", f"url(#{name}-").replace('href="#', f'href="#{name}-')
    svg = svg.replace(curves.INK, "currentColor")
    opening = f'<svg role="img" aria-labelledby="{name}-title {name}-desc"'
    head = f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-desc">{escape(description)}</desc>'
    end = svg.index(">")
    return Markup(opening + svg[len("<svg") : end + 1] + head + svg[end + 1 :])


def _write_tables(sections: Sequence[Section], out: Path) -> None:
    """Each table by itself, and all of them together."""
    markdown, latex, long = [], [], []
    with replacing_folder(out / "tables") as folder:
        for section in sections:
            markdown.append(f"## {_markdown_text(section.title)}\n\n{_markdown_text(section.lead)}\n")
            for block in section.blocks:
                if block.frame is None:
                    continue
                written = {kind: tables.format_table(block.frame, kind) for kind in ("markdown", "latex", "csv")}
                write_text(folder / f"{block.anchor}.md", written["markdown"])
                write_text(folder / f"{block.anchor}.tex", written["latex"])
                write_text(folder / f"{block.anchor}.csv", written["csv"])
                note = f"\n{_markdown_text(block.note)}\n" if block.note else ""
                markdown.append(f"### {block.title}\n\n{block.look}\n\n{written['markdown']}{note}")
                words = " ".join(part for part in (f"{block.title}.", section.lead, block.note) if part)
                latex.append(
                    f"% {block.anchor}\n\\begin{{table}}\n\\centering\n\\caption{{{tables.latex_text(words)}}}\n"
                    f"{written['latex']}\\end{{table}}\n"
                )
                long += _long_form(section.title, block.title, block.frame)
    write_text(out / "tables.md", "# Tables\n\n" + "\n".join(markdown))
    write_text(out / "tables.tex", "% Needs \\usepackage{booktabs}.\n" + "\n".join(latex))
    frame = pd.DataFrame(long, columns=["dataset", "table", "row", "column", "statistic", "value"])
    write_text(out / "tables.csv", frame.to_csv(index=False, lineterminator="\n"))


def _long_form(dataset: str, table: str, frame: pd.DataFrame) -> list[tuple[Any, ...]]:
    keys = [column if isinstance(column, tuple) else (column, "") for column in frame.columns]
    return [
        (dataset, table, label, *key, frame.iloc[row, column])
        for row, label in enumerate(frame.index)
        for column, key in enumerate(keys)
    ]


def _markdown_text(text: str) -> str:
    return re.sub(r"([\\`*_<>|\[\]])", r"\\\1", text)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "x"


def _render(sections: Sequence[Section], groups: Sequence[list[Run]]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("imgrec_lib.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    runs = [run for group in groups for run in group]
    count: Callable[[str], int] = lambda key: len({run.record[key] for run in runs})  # noqa: E731
    return environment.get_template("report.html.j2").render(
        sections=sections,
        gallery_style=Markup(gallery.STYLE),
        runs=len(runs),
        models=count("model"),
        seeds=count("seed"),
        finished=max(run.record["finished"] for run in runs),
        version=__version__,
    )
