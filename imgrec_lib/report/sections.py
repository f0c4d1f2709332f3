"""What stands in a report: sections of blocks, each a table, a figure or a gallery with what to look at."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from urllib.parse import quote

import matplotlib
import numpy as np
import pandas as pd
from markupsafe import Markup, escape

from imgrec_lib.data.dataset import Dataset
from imgrec_lib.errors import InputError
from imgrec_lib.evaluation import user_metrics
from imgrec_lib.figures import curves, grid
from imgrec_lib.figures import search as search_figures
from imgrec_lib.figures.curves import Chart, standings_chart
from imgrec_lib.gallery.gallery import Gallery
from imgrec_lib.gallery.views import neighbour_gallery, recommendation_gallery, side_by_side
from imgrec_lib.report.formats import MISSING, format_table
from imgrec_lib.results.comparison import HOLDS, comparison_note, difference_table, further_differences, user_values
from imgrec_lib.results.paper import PAPER, PAPER_TABLES, paper_dataset, paper_tables, sizes_table
from imgrec_lib.results.results import Results
from imgrec_lib.results.standings import Standings
from imgrec_lib.results.tables import (
    caption,
    cautions,
    cold_table,
    cost_table,
    history_table,
    lists_table,
    metrics_table,
    not_run,
    popularity_table,
    protocol_table,
    ranking_table,
    results_table,
    search_table,
    searches,
    variants_table,
)
from imgrec_lib.results.trials import RANDOM, Trials, metric_heading
from imgrec_lib.runs import Inputs, Run
from imgrec_lib.serving import Trained

NOBODY_RANKED = (
    "Nobody can be ranked here: the users own the whole catalogue but for their held-out items, so that there is "
    "nothing to rank these against. Use a larger catalogue."
)
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
        part: heading of the part of the section that is shown on demand and holds it; empty for what is shown at once.
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
    part: str = ""


@dataclass(frozen=True)
class Section:
    """A part of the page: one dataset's results, or what all have in common.

    Attributes:
        anchor: its address on the page.
        title: its heading.
        lead: what its numbers mean.
        blocks: what it holds, in order; those of a part follow each other.
        verdict: its answer in sentences, the most important first.
        leaders: the best rows as lines of text.
    """

    anchor: str
    title: str
    lead: str
    blocks: tuple[Block, ...]
    verdict: tuple[str, ...] = ()
    leaders: tuple[str, ...] = ()

    @property
    def parts(self) -> list[tuple[str, list[Block]]]:
        """The blocks by the part that holds them, "" for those that are shown at once."""
        return [(part, list(blocks)) for part, blocks in groupby(self.blocks, attrgetter("part"))]


@dataclass(frozen=True)
class Reopened:
    """What could be loaded again to draw the galleries of a dataset.

    Attributes:
        dataset: the dataset, or None.
        recommender: of the runs that see pictures the one that is best on the validation items, by what the runs were
            chosen by; of all runs where none sees any.
        embedder: of the runs with visual features the one that is best on the validation items; None without any.
        inputs: where their data are loaded.
        chosen: how the recommender was chosen, in words.
        problem: a sentence where the dataset is None.
    """

    dataset: Dataset | None
    recommender: Run
    embedder: Run | None
    inputs: Inputs
    chosen: str
    problem: str = ""

    def trained(self, run: Run) -> Trained:
        """The model of one of the two runs."""
        return Trained.of(run, *self.inputs.of(run))


def load_again(results: Results, inputs: Inputs) -> Reopened:
    """Load the data of one dataset's runs again, as their records say, or say why that cannot be done."""

    def validation(run: Run) -> float:
        return run.record.validation.value(results.chosen_by)

    # A control is there to be compared with; and the pictures are shown of a model that sees them, where there is one.
    rows = [row for row in results.rows if not row.is_control] or list(results.rows)
    seeing = [row for row in rows if row.sees_pictures] or rows
    recommender = max((run for row in seeing for run in row.runs), key=validation)
    described = [run for row in rows for run in row.runs if run.record.features is not None]
    embedder = max(described, key=validation, default=None)
    chosen = "the one that is best on the validation items"
    if len(seeing) < len(results.rows):
        chosen = f"of the runs that see pictures {chosen}"
    try:
        datasets = [inputs.of(run)[0] for run in (embedder, recommender) if run is not None]
    except (InputError, OSError) as error:
        return Reopened(None, recommender, embedder, inputs, chosen, f"The pictures cannot be shown: {error}")
    if datasets[-1].fingerprint != recommender.record.dataset.fingerprint:
        changes = recommender.record.dataset.changes(datasets[-1])
        problem = (
            f"The pictures cannot be shown: the data of run {recommender.name} have changed since its training. Now "
            f"there are: {changes}."
        )
        return Reopened(None, recommender, embedder, inputs, chosen, problem)
    return Reopened(datasets[-1], recommender, embedder, inputs, chosen)


def sizes_section(groups: Sequence[Results], datasets: dict[str, Dataset], prefixes: Sequence[str]) -> Section:
    """Table 1, each dataset's numbers linked to its runs."""
    frame = sizes_table(groups, datasets)
    look = (
        "Density and the share of cold items tell how hard a data set is: what nobody bought in training can be ranked "
        "by its picture alone."
    )
    links = {results.dataset.name: f"#{prefix}-runs" for results, prefix in zip(groups, prefixes, strict=True)}
    block = _table_block("sizes", "Table 1: data sets", look, frame, links)
    return Section("data", "Data sets", "", (replace(block, part="Sizes of the data sets"),))


def section_prefix(number: int, results: Results) -> str:
    """What the anchors and files of a dataset's section begin with."""
    return f"{_slug(results.dataset.name)}-{number}"


def dataset_section(
    prefix: str,
    results: Results,
    searched: Results | None,
    again: Reopened,
    out: Path,
    pages: Mapping[str, str],
    *,
    pictures: bool = True,
) -> Section:
    """All that is said of one dataset.

    Args:
        prefix: see `section_prefix`.
        results: its results.
        searched: the runs of its searches; None without any.
        again: what could be loaded again.
        out: the report's folder, from which links start.
        pages: addresses of the rendered notebooks, by the run's name.
        pictures: whether galleries are wanted.
    """
    results = results.best_first
    blocks = _Blocks(prefix, {row.label: f"#{prefix}-run-{_slug(row.runs[0].name)}" for row in results.rows})
    record, missing = results.dataset, not_run(results)
    title = f"{record.name} ({record.users:,} users, {record.items:,} items)"
    runs = Block(
        f"{prefix}-runs",
        "Runs",
        "Every number above is computed from these runs; the link opens the executed notebook.",
        _runs_list(prefix, [*results.rows, *(searched.rows if searched else ())], out, pages),
        part="Runs and their notebooks",
    )
    if not results.ranked:
        return Section(prefix, title, caption(results), (runs,), (NOBODY_RANKED,))
    standings = Standings(results)
    parts: dict[str, list[Block]] = {
        "": [_standings(blocks, standings), _main(blocks, results, searched)],
        "In pictures": _galleries(prefix, again, results) if pictures else [],
        "Other metrics": _metrics(blocks, results),
        "Which differences hold": _differences(blocks, results),
        "The paper's tables": _paper(blocks, results),
        "Protocols and ties": _protocols(blocks, results),
        "For whom, and for which items": _bands(blocks, results),
        "Training, searches and cost": _training(blocks, results, searched),
    }
    return Section(
        prefix,
        title,
        caption(results) + (f" Without a run here: {', '.join(missing)}." if missing else ""),
        (*(replace(block, part=part) for part, found in parts.items() for block in found), runs),
        tuple(standings.verdict),
        tuple(standings.lines()),
    )


@dataclass(frozen=True)
class _Blocks:
    """Makes the blocks of one dataset's section.

    Attributes:
        prefix: what their anchors begin with.
        links: where the numbers of a table's row come from, by its label.
    """

    prefix: str
    links: Mapping[str, str]

    def table(
        self,
        name: str,
        title: str,
        look: str,
        frame: pd.DataFrame,
        note: str = "",
        *,
        folded: bool = False,
        main: bool = False,
    ) -> Block:
        return _table_block(f"{self.prefix}-{name}", title, look, frame, self.links, note, folded=folded, main=main)

    def figure(self, name: str, title: str, look: str, drawn: Chart) -> Block:
        anchor = f"{self.prefix}-{name}"
        return Block(anchor, title, look, _scrolling(title, _plot(svg(drawn, anchor, title))))


def _plot(drawing: Markup, kind: str = "") -> Markup:
    return Markup('<figure class="{}">{}</figure>').format(f"plot {kind}".strip(), drawing)


def _standings(blocks: _Blocks, standings: Standings) -> Block:
    """The figure that carries the verdict, once for wide pages and once for telephones."""
    anchor, title = f"{blocks.prefix}-standings", f"{metric_heading(standings.metric)} of every model"
    drawn = Markup().join(
        _plot(svg(standings_chart(standings, narrow=narrow), f"{anchor}-{kind}", title), kind)
        for kind, narrow in (("wide", False), ("narrow", True))
    )
    look = "Two rows whose intervals overlap may still be told apart: the same users are compared. A diamond is the "
    look += f"same model with every item given another item's {standings.shuffled}."
    return Block(anchor, title, look if standings.controlled else look.partition(" A diamond")[0], drawn)


def _main(blocks: _Blocks, results: Results, searched: Results | None) -> Block:
    """The main table."""
    comparison = results.comparison
    note = [] if comparison is None else [f"{HOLDS} {comparison_note(comparison)}"]
    note += [*cautions(results), *([searches(searched)] if searched else [])]
    return blocks.table(
        "auc",
        "Results",
        "Compare within a column. A visual model earns its place by beating PopRank in AUC and by its cold AUC, where "
        "a model without pictures can only guess.",
        results_table(results),
        " ".join(note),
        main=True,
    )


def _metrics(blocks: _Blocks, results: Results) -> list[Block]:
    """Every metric of the held-out items and of the lists."""
    every = blocks.table(
        "metrics-table",
        "Every metric over the whole catalogue",
        "For users with one held-out item recall is the hit ratio, precision a tenth or a twentieth of it, and MAP is "
        "MRR.",
        metrics_table(results),
    )
    lists = blocks.table(
        "lists-table",
        "What all users are shown",
        "Of the lists themselves, right or wrong: the share of the catalogue that anybody is shown, how unevenly "
        "(Gini, 0 is even), how rare and how popular the items are, how different within a list. More is not better: "
        "random lists cover everything.",
        lists_table(results),
    )
    return [table for table in (every, lists) if table.frame is not None and len(table.frame.columns) > 1]


def _differences(blocks: _Blocks, results: Results) -> list[Block]:
    comparison = results.comparison
    if comparison is None:
        return []
    pairs = difference_table(comparison, further_differences(results.rows))
    of_pairs = _Blocks(blocks.prefix, {str(pair): f"#{blocks.prefix}-runs" for pair in pairs.index})
    luck = " or speaks of settings that were not searched on this data" if comparison.unsearched else ""
    return [
        blocks.figure(
            "differences",
            "Which differences hold",
            f"Read along a row: a filled cell is a lead that holds, one in brackets may be luck{luck}. Models that "
            "cannot be told apart share a place, whatever their order.",
            curves.difference_matrix(comparison),
        ),
        of_pairs.table(
            "differences-table",
            "Every pair, in numbers",
            "Mean difference of the users' AUC with its 95 % interval (of the pair alone, not corrected), and the "
            "p-value after the correction. HR@10 and the AUC of cold items likewise, by intervals alone.",
            pairs,
            folded=True,
        ),
    ]


def _paper(blocks: _Blocks, results: Results) -> list[Block]:
    """The paper's tables from our runs, beside what the paper prints."""
    found = []
    for title, frame in paper_tables(results).items():
        printed = (PAPER, "") in frame.columns
        look = (
            f"Beside the paper's values for {paper_dataset(results)}: the difference is ours minus theirs."
            if printed
            else "The models of the paper's table on this data set, for which the paper has no values."
        )
        note = next(paper.note for paper in PAPER_TABLES if paper.title == title) if printed else ""
        found.append(blocks.table(_slug(title.split(":")[0]), title, look, frame, note))
    return found


def _protocols(blocks: _Blocks, results: Results) -> list[Block]:
    return [
        blocks.figure(
            "protocols",
            "Exact and sampled AUC",
            "The sampled values should stand close to the exact one; the longer the line to the open marker, the more "
            "of a model's AUC hangs on how ties are counted.",
            curves.sampled_vs_exact(results),
        ),
        blocks.table(
            "protocols-table",
            "AUC by protocol and tie rule",
            "Ties are what cold items get from a model that only counts: there the two rules part.",
            protocol_table(results),
        ),
        blocks.table(
            "ranking-table",
            "Hits among the first ten",
            "HR@10 over a hundred candidates says little of HR@10 over the catalogue: do not compare across protocols.",
            ranking_table(results),
        ),
    ]


def _bands(blocks: _Blocks, results: Results) -> list[Block]:
    """AUC by how much was bought of the item, and how much the user bought."""
    return [
        blocks.figure(
            "popularity",
            "AUC by popularity of the item",
            "On the left are the items that nobody or hardly anybody bought: popularity fails there, "
            "pictures need not. The other models are grey.",
            curves.auc_by_popularity(results),
        ),
        blocks.table(
            "popularity-table",
            "AUC by popularity, in numbers",
            "Each heading says how many users have their test item in the band: few users, wide error.",
            popularity_table(results),
        ),
        blocks.figure(
            "history",
            "AUC by history of the user",
            "A model that learns tastes should gain from left to right; one that only counts purchases cannot. The "
            "other models are grey.",
            curves.auc_by_history(results),
        ),
        blocks.table(
            "history-table",
            "AUC by history, in numbers",
            "Each heading says how many users the band has.",
            history_table(results),
        ),
        blocks.table(
            "cold",
            "Cold items",
            "An AUC of 0.5 is a guess, one below it means that cold items are pushed to the end of every list.",
            cold_table(results),
        ),
        *_variants(blocks, results),
    ]


def _variants(blocks: _Blocks, results: Results) -> list[Block]:
    """The figures with and without users whose held-out item is a variant of something bought."""
    frame = variants_table(results)
    look = (
        "Who bought a shirt buys it in another colour, too. A model that finds variants alone looks good with the "
        "users who did, and not without them."
    )
    return [] if frame is None else [blocks.table("variants", "Variants of one product", look, frame)]


def _training(blocks: _Blocks, results: Results, searched: Results | None) -> list[Block]:
    return [
        blocks.figure(
            "learning",
            "Learning curves",
            "A band is one standard deviation over the trials that still train; a dot is the epoch whose weights "
            "were kept. A curve that still rises at its end would gain from more epochs. The first epochs may lie "
            "below the axis.",
            curves.learning_curves(results),
        ),
        *(_searches(blocks.prefix, searched) if searched else ()),
        blocks.figure(
            "cost",
            "Cost and quality",
            "Up and to the left is better; the axis of seconds is logarithmic.",
            curves.cost_vs_quality(results),
        ),
        blocks.table(
            "cost-table",
            "Cost, in numbers",
            "Seconds depend on the machine: compare models of the same device only.",
            cost_table(results),
        ),
    ]


def _searches(prefix: str, searched: Results) -> list[Block]:
    """For each model that was searched, its configurations by validation, and by each setting."""
    blocks = []
    for model, profile in dict.fromkeys((row.record.model, row.record.profile) for row in searched.rows):
        rows = searched.of_model(model, profile)
        frame = search_table(rows, searched.chosen_by)
        name = rows[0].record.title + ("" if profile == "default" else f", {profile} profile")
        anchor = f"{prefix}-search-{_slug(f'{model}-{profile}')}"
        title = f"Search of {name}"
        chosen_by = f"validation {metric_heading(searched.chosen_by)}"
        drawn = grid.validation_surface(frame) or search_figures.slices(
            pd.DataFrame({column[0]: frame[column] for column in frame.columns if column[1] == ""}).drop(
                columns="trials"
            ),
            frame[chosen_by, "mean"],
            chosen_by,
        )
        if drawn is not None:
            look = f"Chosen by {chosen_by} alone. A best value at the edge of what was tried asks for a wider space."
            shown = _scrolling(title, _plot(svg(drawn, anchor, title)))
            blocks.append(Block(anchor, f"{title}: {chosen_by}", look, shown))
        ordered = sorted(rows, key=lambda row: -row.validation(searched.chosen_by))
        links = {str(place): f"#{prefix}-run-{_slug(row.runs[0].name)}" for place, row in enumerate(ordered, 1)}
        look = f"{len(frame)} configurations, best first. None of them was tested."
        blocks.append(_table_block(f"{anchor}-table", f"{title}, in numbers", look, frame, links))
    return blocks


def _galleries(prefix: str, again: Reopened, results: Results) -> list[Block]:
    """Neighbours and recommendations as pictures, or a sentence where the data is gone."""
    if again.dataset is None:
        return [Block(f"{prefix}-galleries", "Galleries", again.problem)]
    return [
        _neighbours(f"{prefix}-neighbours", again.dataset, again),
        _recommendations(f"{prefix}-recommendations", again.dataset, again),
        _worst_served(f"{prefix}-worst-served", again.dataset, again, results),
    ]


def _neighbours(anchor: str, dataset: Dataset, again: Reopened) -> Block:
    title, run = "Nearest items", again.embedder
    trained = None if run is None else again.trained(run)
    features = None if trained is None else trained.features
    if run is None or trained is None or features is None:
        return Block(anchor, title, "No run here uses visual features, whose neighbours could be shown.")
    model, items = run.record.title, _queries(dataset)
    notice = f" ({RANDOM})" if features.random else ""
    spaces = {f"by visual features{notice}": features.values}
    if features.widths:
        spaces = {f"by {name}{notice}": values for name, values in features.views.items()}
    by = " and by ".join(features.views)
    look = f"The best-selling item of each of the largest categories, with its nearest items by {by}"
    if trained.learned is not None:
        spaces[f"by {model}{notice}"] = trained.learned.numpy()
        look += (
            f" and by what {model} (seed {run.record.seed}) learned. Features find the same shape and colour; "
            "a learned embedding should find what the same people buy"
        )
    rows = [neighbour_gallery(dataset, vectors, items, NEIGHBOURS, space) for space, vectors in spaces.items()]
    return _gallery_block(anchor, f"{look}. The number is the cosine.", side_by_side(title, *rows))


def _recommendations(anchor: str, dataset: Dataset, again: Reopened) -> Block:
    run = again.recommender
    scorer = again.trained(run).scorer
    title = "Recommendations to three users"
    shown = recommendation_gallery(dataset, scorer, _users(run), NEIGHBOURS + 1, title)
    look = (
        f"By {run.record.title}, seed {run.record.seed}, {again.chosen}, to those users "
        "whose test item it ranks badly, typically and well (5th, 50th and 95th percentile of AUC). See whether the "
        "recommendations share something visible with the purchases. The number is the model's score."
    )
    return _gallery_block(anchor, look, shown)


def _worst_served(anchor: str, dataset: Dataset, again: Reopened, results: Results) -> Block:
    """The users whom the configuration that is best on the validation items serves worst, as pictures."""
    run = again.recommender
    (row,) = [row for row in results.rows if run in row.runs]
    ranked = user_values([row]).iloc[:, 0].dropna().sort_values(kind="stable")
    badly = ranked.index[: max(WORST, len(ranked) // 100)]
    about = run.per_user.set_index("user").loc[ranked.index]
    worst = about.loc[badly]
    scorer = again.trained(run).scorer
    users = [int(user) for user in badly[:WORST]]
    shown = recommendation_gallery(dataset, scorer, users, NEIGHBOURS + 1, "The worst-served users")
    sold, sold_to_all = worst["item_popularity"].mean(), about["item_popularity"].mean()
    look = (
        f"The {len(users)} users with the lowest AUC by {row.label}, mean over {len(row.runs)} trials; the pictures "
        f"are of seed {run.record.seed}. Of the {len(badly):,} users served worst, {worst['cold'].mean():.0%} have "
        f"a cold test item (of all {about['cold'].mean():.0%}); their test items have {sold:.1f} training interactions "
        f"on average (of all {sold_to_all:.1f})."
    )
    return _gallery_block(anchor, look, shown)


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
    links: Mapping[str, str] | None = None,
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
                '<tr id="{}"><th scope="row">{}</th><td class="text">{}</td><td>{}</td><td>{}</td><td>{}</td>'
                '<td class="text">{}</td><td class="text">{}</td></tr>\n'
            ).format(
                f"{prefix}-run-{_slug(run.name)}",
                name,
                row.label,
                record.seed,
                MISSING if record.validation.auc is None else f"{record.validation.auc:.4f}",
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


def _slug(text: str) -> str:
    """`text` as a part of an address: lower-case letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "x"
