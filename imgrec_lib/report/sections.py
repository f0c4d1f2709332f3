"""What stands in a report: sections of blocks, each a table, a figure or a gallery with what to look at."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import matplotlib
import numpy as np
import pandas as pd
import torch
from markupsafe import Markup, escape

from imgrec_lib.data.dataset import Dataset
from imgrec_lib.errors import InputError
from imgrec_lib.evaluation import user_metrics
from imgrec_lib.features import Features
from imgrec_lib.models.base import InnerProduct, Scorer
from imgrec_lib.report import curves, gallery, grid
from imgrec_lib.report.curves import Chart
from imgrec_lib.report.formats import MISSING, format_table
from imgrec_lib.report.gallery import Gallery
from imgrec_lib.results.comparison import HOLDS, compare, comparison_note, difference_table, user_auc
from imgrec_lib.results.paper import PAPER, PAPER_TABLES, paper_dataset, paper_tables, sizes_table
from imgrec_lib.results.tables import (
    caption,
    cold_table,
    cost_table,
    history_table,
    not_run,
    popularity_table,
    protocol_table,
    ranking_table,
    results_table,
)
from imgrec_lib.results.trials import RANDOM, Trials, trials
from imgrec_lib.runs import Run, load_inputs, load_model

NEIGHBOURS = 7
QUERIES = 6
PICTURE = 112
WORST = 5
"""Users shown of those that the best model serves worst."""


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
        folded: a long table that is shown on demand.
        main: the dataset's main table.
    """

    anchor: str
    title: str
    look: str
    body: Markup = field(default_factory=Markup)
    frame: pd.DataFrame | None = None
    note: str = ""
    gallery: Gallery | None = None
    folded: bool = False
    main: bool = False


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


def load_again(runs: Sequence[Run], progress: bool) -> Inputs:
    """Load the data of one dataset's runs again, as their records say, or say why that cannot be done."""
    recommender = max(runs, key=_validation)
    embedder = max(
        (run for run in runs if run.record.features is not None),
        key=lambda run: (run.record.model.startswith("imgrec"), _validation(run)),
        default=None,
    )
    try:
        dataset, found = load_inputs(embedder or recommender, progress)
        features = {recommender.name: None, (embedder or recommender).name: found}
        if embedder is not None and recommender.record.features == embedder.record.features:
            features[recommender.name] = found
        elif recommender.record.features is not None:
            dataset, features[recommender.name] = load_inputs(recommender, progress)
    except (InputError, OSError) as error:
        return Inputs(None, recommender, embedder, problem=f"The pictures cannot be shown: {error}")
    if dataset.fingerprint != recommender.record.dataset.fingerprint:
        problem = f"The pictures cannot be shown: the data of run {recommender.name} has changed since its training."
        return Inputs(None, recommender, embedder, problem=problem)
    return Inputs(dataset, recommender, embedder, features)


def _validation(run: Run) -> float:
    return run.record.validation.auc


def sizes_section(groups: Sequence[list[Run]], datasets: dict[str, Dataset], prefixes: Sequence[str]) -> Section:
    """Table 1, each dataset's numbers linked to its runs."""
    frame = sizes_table([run for runs in groups for run in runs], datasets)
    look = (
        "Density and the share of cold items tell how hard a data set is: what nobody bought in training can be ranked "
        "by its picture alone."
    )
    links = {runs[0].record.dataset.name: f"#{prefix}-runs" for runs, prefix in zip(groups, prefixes, strict=True)}
    return Section("data", "Data sets", "", (_table_block("sizes", "Table 1: data sets", look, frame, links),))


def section_prefix(number: int, runs: Sequence[Run]) -> str:
    """What the anchors and files of a dataset's section begin with."""
    return f"{slug(runs[0].record.dataset.name)}-{number}"


def dataset_section(
    prefix: str,
    runs: Sequence[Run],
    searched: Sequence[Run],
    inputs: Inputs,
    out: Path,
    pages: Mapping[str, str],
    *,
    pictures: bool = True,
) -> Section:
    """All that is said of one dataset.

    Args:
        prefix: see `section_prefix`.
        runs: its trials.
        searched: the runs of its grids.
        inputs: what could be loaded again.
        out: the report's folder, from which links start.
        pages: addresses of the rendered notebooks, by the run's name.
        pictures: whether galleries are wanted.
    """
    rows = trials(runs)
    links = {row.label: f"#{prefix}-run-{slug(row.runs[0].name)}" for row in rows}

    def table(
        name: str,
        title: str,
        look: str,
        frame: pd.DataFrame,
        note: str = "",
        *,
        folded: bool = False,
        main: bool = False,
    ) -> Block:
        return _table_block(f"{prefix}-{name}", title, look, frame, links, note, folded=folded, main=main)

    def figure(name: str, title: str, look: str, drawn: Chart, note: str = "") -> Block:
        return Block(f"{prefix}-{name}", title, look, svg(drawn, f"{prefix}-{name}", title), note=note)

    comparison = compare(runs)
    blocks = [
        table(
            "auc",
            "Results",
            "Compare within a column. A visual model earns its place by beating PopRank in AUC and by its cold AUC, "
            "where a model without pictures can only guess.",
            results_table(runs, comparison),
            "" if comparison is None else f"{HOLDS} {comparison_note(comparison)}",
            main=True,
        )
    ]
    if comparison is not None:
        pairs = difference_table(comparison)
        links |= {str(pair): f"#{prefix}-runs" for pair in pairs.index}
        blocks += [
            figure(
                "differences",
                "Which differences hold",
                "Read along a row: a filled cell is a lead that holds, one in brackets may be luck. Models that cannot "
                "be told apart share a place, whatever their order.",
                curves.difference_matrix(comparison),
            ),
            table(
                "differences-table",
                "Every pair, in numbers",
                "Mean difference of the users' AUC with its 95 % interval (of the pair alone, not corrected), and the "
                "p-value after the correction.",
                pairs,
                folded=True,
            ),
        ]
    for title, frame in paper_tables(runs).items():
        note = next(paper.note for paper in PAPER_TABLES if paper.title == title)
        look = (
            f"Beside the paper's values for {paper_dataset(runs)}: the difference is ours minus theirs."
            if (PAPER, "") in frame.columns
            else "The models of the paper's table on this data set, for which the paper has no values."
        )
        blocks.append(
            table(slug(title.split(":")[0]), title, look, frame, note if (PAPER, "") in frame.columns else "")
        )
    blocks += [
        figure(
            "protocols",
            "Exact and sampled AUC",
            "The sampled values should stand close to the exact one; the longer the line to the open marker, the more "
            "of a model's AUC hangs on how ties are counted.",
            curves.sampled_vs_exact(runs),
        ),
        table(
            "protocols-table",
            "AUC by protocol and tie rule",
            "Ties are what cold items get from a model that only counts: there the two rules part.",
            protocol_table(runs),
        ),
        table(
            "ranking-table",
            "Hits among the first ten",
            "HR@10 over a hundred candidates says little of HR@10 over the catalogue: do not compare across protocols.",
            ranking_table(runs),
        ),
        figure(
            "learning",
            "Learning curves",
            "A band is one standard deviation over the trials that still train; a dot is the epoch whose weights were "
            "kept. A curve that still rises at its end would gain from more epochs. The first epochs may lie below the "
            "axis.",
            curves.learning_curves(runs),
        ),
        figure(
            "popularity",
            "AUC by popularity of the item",
            "On the left are the items that nobody or hardly anybody bought: popularity fails there, "
            "pictures need not. The other models are grey.",
            curves.auc_by_popularity(runs),
        ),
        table(
            "popularity-table",
            "AUC by popularity, in numbers",
            "Each heading says how many users have their test item in the band: few users, wide error.",
            popularity_table(runs),
        ),
        figure(
            "history",
            "AUC by history of the user",
            "A model that learns tastes should gain from left to right; one that only counts purchases cannot. The "
            "other models are grey.",
            curves.auc_by_history(runs),
        ),
        table(
            "history-table",
            "AUC by history, in numbers",
            "Each heading says how many users the band has.",
            history_table(runs),
        ),
        table(
            "cold",
            "Cold items",
            "An AUC of 0.5 is a guess, one below it means that cold items are pushed to the end of every list.",
            cold_table(runs),
        ),
        *_grids(prefix, searched),
        figure(
            "cost",
            "Cost and quality",
            "Up and to the left is better; the axis of seconds is logarithmic.",
            curves.cost_vs_quality(runs),
        ),
        table(
            "cost-table",
            "Cost, in numbers",
            "Seconds depend on the machine: compare models of the same device only.",
            cost_table(runs),
        ),
        *(_galleries(prefix, inputs, runs) if pictures else []),
        Block(
            f"{prefix}-runs",
            "Runs",
            "Every number above is computed from these runs; the link opens the executed notebook.",
            _runs_list(prefix, [*rows, *(trials(searched) if searched else [])], out, pages),
        ),
    ]
    record = runs[0].record.dataset
    title = f"{record.name} ({record.users:,} users, {record.items:,} items)"
    missing = not_run(runs)
    lead = caption(runs) + (f" Without a run here: {', '.join(missing)}." if missing else "")
    return Section(prefix, title, lead, tuple(blocks))


def _grids(prefix: str, runs: Sequence[Run]) -> list[Block]:
    """For each model that was searched, its configurations by validation AUC, and the surface where it can be drawn."""
    blocks = []
    searched = dict.fromkeys((run.record.model, run.record.profile) for run in runs)
    for model, profile in searched:
        own = [run for run in runs if (run.record.model, run.record.profile) == (model, profile)]
        frame = grid.grid_table(own)
        name = own[0].record.title + ("" if profile == "default" else f", {profile} profile")
        anchor = f"{prefix}-grid-{slug(f'{model}-{profile}')}"
        title = f"Grid search of {name}"
        drawn = grid.validation_surface(frame)
        if drawn is not None:
            look = "Chosen by validation AUC alone. A best value at the edge of the grid asks for a wider one."
            blocks.append(Block(anchor, f"{title}: validation AUC", look, svg(drawn, anchor, title)))
        rows = trials(own)
        by_auc = sorted(rows, key=lambda row: -float(np.mean([_validation(run) for run in row.runs])))
        links = {str(place): f"#{prefix}-run-{slug(row.runs[0].name)}" for place, row in enumerate(by_auc, 1)}
        look = f"{len(frame)} configurations, best first. None of them was tested."
        blocks.append(_table_block(f"{anchor}-table", f"{title}, in numbers", look, frame, links))
    return blocks


def _galleries(prefix: str, inputs: Inputs, runs: Sequence[Run]) -> list[Block]:
    """Neighbours and recommendations as pictures, or a sentence where the data is gone."""
    if inputs.dataset is None:
        return [Block(f"{prefix}-galleries", "Galleries", inputs.problem)]
    return [
        _neighbours(f"{prefix}-neighbours", inputs.dataset, inputs),
        _recommendations(f"{prefix}-recommendations", inputs.dataset, inputs),
        _worst_served(f"{prefix}-worst-served", inputs.dataset, inputs, runs),
    ]


def _neighbours(anchor: str, dataset: Dataset, inputs: Inputs) -> Block:
    title, run = "Nearest items", inputs.embedder
    features = None if run is None else inputs.features[run.name]
    if run is None or features is None:
        return Block(anchor, title, "No run here uses visual features, whose neighbours could be shown.")
    model, items = run.record.title, _queries(dataset)
    notice = f" ({RANDOM})" if features.random else ""
    spaces = {f"by visual features{notice}": features.values}
    look = "The best-selling item of each of the largest categories, with its nearest items by picture"
    scorer = _scorer(run, dataset, features)
    if isinstance(scorer, InnerProduct):
        spaces[f"by {model}{notice}"] = scorer.items.numpy()
        look += (
            f" and by what {model} (seed {run.record.seed}) learned. Features find the same shape and colour; "
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
        f"By {run.record.title}, seed {run.record.seed}, the run with the best validation AUC, to those users "
        "whose test item it ranks badly, typically and well (5th, 50th and 95th percentile of AUC). See whether the "
        "recommendations share something visible with the purchases. The number is the model's score."
    )
    return _gallery_block(anchor, look, shown)


def _worst_served(anchor: str, dataset: Dataset, inputs: Inputs, runs: Sequence[Run]) -> Block:
    """The users whom the configuration of the best validation AUC serves worst, as pictures."""
    run = inputs.recommender
    (row,) = [row for row in trials(runs) if run in row.runs]
    ranked = user_auc(row.runs).iloc[:, 0].dropna().sort_values(kind="stable")
    about = run.per_user.set_index("user").loc[ranked.index]
    worst = about.iloc[: max(WORST, len(about) // 100)]
    scorer = _scorer(run, dataset, inputs.features[run.name])
    users = [int(user) for user in worst.index[:WORST]]
    shown = gallery.recommendation_gallery(dataset, scorer, users, NEIGHBOURS + 1, "The worst-served users")
    sold, sold_to_all = worst["item_popularity"].mean(), about["item_popularity"].mean()
    look = (
        f"The {len(users)} users with the lowest AUC by {row.label}, mean over {len(row.runs)} trials; the pictures "
        f"are of seed {run.record.seed}. Of the {len(worst):,} users served worst, {worst['cold'].mean():.0%} have "
        f"a cold test item (of all {about['cold'].mean():.0%}); their test items have {sold:.1f} training interactions "
        f"on average (of all {sold_to_all:.1f})."
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
    anchor: str,
    title: str,
    look: str,
    frame: pd.DataFrame,
    links: dict[str, str] | None = None,
    note: str = "",
    *,
    folded: bool = False,
    main: bool = False,
) -> Block:
    body = _scrolling(title, Markup(format_table(frame, "html", links=links)))
    if folded:
        body = Markup("<details><summary>Show all {} rows</summary>{}</details>").format(len(frame), body)
    return Block(anchor, title, look, body, frame, note, folded=folded, main=main)


def _scrolling(title: str, body: Markup) -> Markup:
    return Markup('<div class="scroll" role="region" tabindex="0" aria-label="{}">{}</div>').format(title, body)


def _runs_list(prefix: str, rows: Sequence[Trials], out: Path, pages: Mapping[str, str]) -> Markup:
    """Every run with its seed, AUC and the links to its notebook; each row of the tables leads here."""
    cells = Markup()
    for row in rows:
        for run in row.runs:
            record = run.record
            notebook = run.folder / "notebook.ipynb"
            name: str | Markup = run.name
            if notebook.exists():
                address = quote(Path(os.path.relpath(notebook, out)).as_posix())
                name = Markup('<a href="{}">{}</a>').format(pages.get(run.name, address), run.name)
                if run.name in pages:
                    name += Markup(' <a href="{}" aria-label="notebook of {}">.ipynb</a>').format(address, run.name)
            tested = run.metrics["exact"]["auc"] if run.metrics else None
            cells += Markup(
                '<tr id="{}"><th scope="row">{}</th><td class="text">{}</td><td>{}</td><td>{:.4f}</td><td>{}</td>'
                '<td class="text">{}</td><td class="text">{}</td></tr>\n'
            ).format(
                f"{prefix}-run-{slug(run.name)}",
                name,
                row.label,
                record.seed,
                record.validation.auc,
                MISSING if tested is None else f"{tested:.4f}",
                record.device,
                record.finished,
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
    table = Markup('<table class="imgrec-table"><thead><tr>{}</tr></thead><tbody>{}</tbody></table>')
    return _scrolling("Runs", table.format(heads, cells))


def svg(figure: Chart, name: str, title: str) -> Markup:
    """A figure as inline SVG: text stays text, ink takes the page's colour, ids are unique on the page."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r'\s(xmlns(:\w+)?|version)="[^"]*"', "", text, count=3)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = text.replace("url(#", f"url(#{name}-").replace('href="#', f'href="#{name}-')
    text = text.replace(curves.INK, "currentColor")
    opening = f'<svg role="img" aria-labelledby="{name}-title {name}-desc"'
    head = f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-desc">{escape(figure.alt)}</desc>'
    end = text.index(">")
    return Markup(opening + text[len("<svg") : end + 1] + head + text[end + 1 :])


def slug(text: str) -> str:
    """`text` as a part of an address: lower-case letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "x"
