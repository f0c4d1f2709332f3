"""The report as one HTML file that needs nothing else, and what stands beside it as files.

index.html             the page; opens offline, in light and dark
verdict.txt            what the runs say in a few sentences, and the best models: what commands print at their end
tables.md, tables.tex  all tables, for GitHub and for a paper
tables.csv             all numbers in long form: dataset, table, row, column, statistic, value
tables/                each table by itself as .md, .tex and .csv
galleries/             contact sheets (PNG)
notebooks/             the executed notebooks as pages, to which the numbers link
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Collection, Sequence
from importlib import resources
from pathlib import Path
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from imgrec_lib import __version__
from imgrec_lib.files import replacing_folder, write_text
from imgrec_lib.gallery.html import STYLE
from imgrec_lib.progress import progress_bar
from imgrec_lib.report.notebook_pages import is_executed, write_notebook_pages
from imgrec_lib.report.sections import Section, dataset_section, load_again, section_prefix, sizes_section
from imgrec_lib.report.texts import insert_results, markdown_tables, write_tables
from imgrec_lib.request import Moved
from imgrec_lib.results import Results
from imgrec_lib.runs import TESTED, Inputs, Run, check_roots, find_runs


def write_report(
    runs_folder: Path,
    out: Path,
    *,
    only: Collection[str] | None = None,
    pictures: bool = True,
    markdown: Path | None = None,
    title: str = "Results",
    insert: Path | None = None,
    root: Moved = None,
    progress: bool = True,
) -> Path:
    """Write the report of all finished runs below a folder.

    The data is loaded again, as each run's record says, to draw the galleries; where it is gone the page says so.
    Runs of different datasets have tables of their own. Files of an earlier report are replaced.

    Args:
        runs_folder: where the runs lie.
        out: the report's folder; made when missing.
        only: names of the run folders to report on; None for all. What searches tried is shown in any case.
        pictures: False for data whose pictures may not be passed on: no gallery, no rendered notebook.
        markdown: write all tables to this file as well: one Markdown page that says how it was made.
        title: the title of that page.
        insert: put the main tables into this file, between the lines that `texts.insert_results` asks for.
        root: where the data lie now, if they were moved: see `Request.at`.
        progress: show a progress bar.

    Returns:
        The path of `index.html`.

    Raises:
        InputError: the folder holds no finished run; or `insert` is no file with those lines.
    """
    out = Path(out)
    groups = Results.by_dataset(run for run in find_runs(runs_folder, TESTED) if only is None or run.name in only)
    runs = [run for results in groups for run in results.runs]
    tried = [run for run in find_runs(runs_folder, stage=None) if run.record.stage == "search"]
    searched = {results.dataset.fingerprint: results for results in Results.by_dataset(tried)}
    check_roots(root, runs)
    inputs = Inputs(root, progress)
    loaded = [load_again(results, inputs) for results in groups]
    datasets = {again.dataset.fingerprint: again.dataset for again in loaded if again.dataset is not None}
    prefixes = [section_prefix(number, results) for number, results in enumerate(groups, 1)]
    pages = _notebooks([*runs, *tried], out) if pictures else {}
    sections: list[Section] = []
    bar = progress_bar(total=len(groups), desc="report", unit="dataset", disable=not progress)
    for prefix, results, again in zip(prefixes, groups, loaded, strict=True):
        own = searched.get(results.dataset.fingerprint)
        sections.append(dataset_section(prefix, results, own, again, out, pages, pictures=pictures))
        bar.update()
    bar.close()
    sections.append(sizes_section(groups, datasets, prefixes))
    write_tables(sections, out)
    with replacing_folder(out / "galleries") as folder:
        for block in (block for section in sections for block in section.blocks):
            if block.gallery is not None:
                block.gallery.png(folder / f"{block.anchor}.png")
    if markdown is not None:
        write_text(Path(markdown), markdown_tables(sections, title, _how_made(runs, pictures)))
    if insert is not None:
        insert_results(sections, Path(insert))
    write_text(out / "verdict.txt", _verdicts(sections))
    write_text(out / "index.html", _render(sections, runs, _stages(out) if pictures else {}))
    return out / "index.html"


def _notebooks(runs: Sequence[Run], out: Path) -> dict[str, str]:
    """Render the notebooks that made the runs; their addresses from the report, by the run's name."""
    made_by = {run.name: run.folder / "notebook.ipynb" for run in runs}
    executed = {name: path for name, path in made_by.items() if path.exists() and is_executed(path)}
    pages = write_notebook_pages(executed, out / "notebooks", "../index.html")
    return {name: quote(page.relative_to(out).as_posix()) for name, page in pages.items()}


def _stages(out: Path) -> dict[str, str]:
    """Render the executed notebooks that lie in the report's folder; their addresses by name."""
    lying = sorted([*out.glob("*.ipynb"), *out.glob("*/*.ipynb")])  # a folder each where there are several datasets
    found = {"-".join(path.relative_to(out).with_suffix("").parts): path for path in lying if is_executed(path)}
    pages = write_notebook_pages(found, out / "stages", "../index.html")
    return {name: quote(page.relative_to(out).as_posix()) for name, page in pages.items()}


def _verdicts(sections: Sequence[Section]) -> str:
    """Each dataset's verdict and best rows as text."""
    told = [
        "\n".join([f"{section.title}", *section.leaders, *section.verdict]) for section in sections if section.verdict
    ]
    return "\n\n".join(told) + "\n"


def _how_made(runs: Sequence[Run], pictures: bool) -> str:
    """The preamble of the Markdown page: command, versions, devices, when."""
    versions = {name: sorted({run.record.versions.get(name, "?") for run in runs}) for name in ("imgrec", "torch")}
    devices = ", ".join(sorted({run.record.device for run in runs}))
    days = sorted({run.record.finished[:10] for run in runs})
    finished = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    text = (
        f"Made by `imgrec report` from the records of {len(runs)} runs, finished {finished} with "
        + ", ".join(f"{name} {' and '.join(each)}" for name, each in versions.items())
        + f" on {devices}."
    )
    return text if pictures else f"{text} Pictures are left out."


def _render(sections: Sequence[Section], runs: Sequence[Run], stages: dict[str, str]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("imgrec_lib.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = (resources.files("imgrec_lib.report") / "templates" / "report.js").read_text(encoding="utf-8")
    return environment.get_template("report.html.j2").render(
        sections=sections,
        script=Markup(script),
        script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        stages=stages,
        gallery_style=Markup(STYLE),
        runs=len(runs),
        models=len({run.record.model for run in runs}),
        seeds=len({run.record.seed for run in runs}),
        finished=max(run.record.finished for run in runs),
        version=__version__,
    )
