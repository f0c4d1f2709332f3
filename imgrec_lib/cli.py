"""The console script `imgrec`: each command is a thin front of a library function."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from imgrec_lib.errors import InputError

app = typer.Typer(
    help="Image-based fashion recommendation: reproduce, compare and extend visual recommenders.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Roots = Annotated[
    list[str] | None,
    typer.Option(help="File or folder of a dataset, in place of the matrix's: NAME=PATH, or PATH; repeatable."),
]


@app.command()
def models(as_json: Json = False) -> None:
    """List the models: what each needs, where it comes from, its profiles.

    Example: imgrec models --json
    """
    from imgrec_lib.models import list_models

    rows = [
        {
            "name": card.name,
            "title": card.title,
            "family": card.family,
            "needs": sorted(card.needs),
            "uses": sorted(card.optional),
            "fidelity": card.fidelity,
            "profiles": list(card.profiles),
            "source": card.source,
        }
        for card in list_models().values()
    ]
    _print(rows, as_json)


@app.command()
def datasets(as_json: Json = False) -> None:
    """List the dataset readers: what each reads and its options.

    Example: imgrec datasets
    """
    from imgrec_lib.data import list_datasets

    rows = [
        {"name": card.name, "reads": card.title, "root": card.root, "options": sorted(card.options)}
        for card in list_datasets().values()
    ]
    _print(rows, as_json)


@app.command()
def train(
    model: Annotated[str, typer.Option(help="A model of 'imgrec models'.")],
    out: Annotated[Path, typer.Option(help="The run's folder.")],
    dataset: Annotated[str, typer.Option(help="A dataset of 'imgrec datasets'.")] = "wardrobe",
    root: Annotated[str, typer.Option(help="File or folder of the dataset.")] = "",
    profile: Annotated[str, typer.Option(help="Named hyper-parameters: default, paper, code.")] = "default",
    seed: Annotated[int, typer.Option(help="Seeds weights, batches and sampled negatives.")] = 0,
    parameter: Annotated[
        list[str] | None, typer.Option("-p", "--parameter", help="A hyper-parameter, name=value; repeatable.")
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option("-o", "--option", help="An option of the dataset, name=value; repeatable.")
    ] = None,
    backbone: Annotated[str, typer.Option(help="Where visual features come from.")] = "efficientnet-lite0",
    weights: Annotated[str, typer.Option(help="default, random, a name of torchvision's, or a file.")] = "default",
    control: Annotated[str, typer.Option(help="'shuffled pictures': give each item another item's picture.")] = "",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "cpu",
    notebook: Annotated[bool, typer.Option(help="Run the notebook, or train alone, as under torchrun.")] = True,
) -> None:
    """Train and evaluate one model by running the training notebook; a stopped run goes on where it was.

    Example: imgrec train --dataset wardrobe --model imgrec-ft --seed 0 -p factors=32 --out runs/ft-0

    Several processes or GPUs: torchrun --nproc-per-node 2 --no-python imgrec train --no-notebook --device cuda ...
    """
    from imgrec_lib.notebooks import run_notebook
    from imgrec_lib.request import Request
    from imgrec_lib.runs import open_run, train_run
    from imgrec_lib.training import distributed

    request = Request(
        model=model,
        profile=profile,
        parameters=_assignments(parameter),
        seed=seed,
        device=device,
        dataset=dataset,
        root=root or None,
        dataset_options=_assignments(option),
        backbone=backbone,
        weights=weights,
        control=control or None,
    )
    request.check()
    if notebook:
        if distributed.launched():
            raise InputError("a notebook is one process: under torchrun, add --no-notebook.")
        values = request.to_parameters() | {"out": str(out.resolve())}
        del values["grid"]  # which is a search's
        run_notebook("03_train", values, out / "notebook.ipynb")
        _print_metrics(open_run(out).metrics)
        typer.echo(f"open {out / 'notebook.ipynb'}")
        return
    with distributed.process_group(device) as own_device:
        first, own = distributed.rank() == 0, replace(request, device=own_device)
        data, features = own.load(progress=first)
        run = train_run(data, own, out, features=features, progress=first)
        if first:
            _print_metrics(run.metrics)


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run.")],
    as_json: Json = False,
) -> None:
    """Load a run's weights, evaluate them again on the test items, and print every metric.

    Example: imgrec evaluate runs/ft-0 --json
    """
    from imgrec_lib.evaluation import evaluate as evaluate_model
    from imgrec_lib.runs import load_inputs, load_model, open_run

    opened = open_run(run)
    dataset, features = load_inputs(opened)
    metrics = evaluate_model(load_model(opened, dataset, features), dataset, seed=opened.record.seed).metrics
    if as_json:
        typer.echo(json.dumps(metrics, indent=2))
    else:
        _print_metrics(metrics)


@app.command()
def report(
    runs: Annotated[Path, typer.Argument(help="A folder of finished runs.")],
    out: Annotated[Path, typer.Option(help="Where the report goes.")],
    pictures: Annotated[
        bool, typer.Option(help="Galleries and rendered notebooks; leave them out where pictures may not be passed on.")
    ] = True,
    markdown: Annotated[Path | None, typer.Option(help="Write all tables to this Markdown file as well.")] = None,
    title: Annotated[str, typer.Option(help="Title of that file.")] = "Results",
    insert: Annotated[
        Path | None, typer.Option(help="Put the main tables between the marked lines of this Markdown file.")
    ] = None,
) -> None:
    """Write one HTML page and the tables (Markdown, LaTeX, CSV) of all runs below a folder.

    Example: imgrec report runs --out reports

    For a repository: imgrec report runs/hm --out reports/hm --no-pictures --markdown reports/hm-week.md
    --title "A week of H&M" --insert README.md
    """
    from imgrec_lib.report import write_report

    page = write_report(runs, out, pictures=pictures, markdown=markdown, title=title, insert=insert)
    typer.echo(f"open {page}")


@app.command()
def run(
    matrix: Annotated[Path, typer.Argument(help="A matrix file (YAML), such as matrices/default.yaml.")],
    runs: Annotated[Path, typer.Option(help="Where the run folders go.")] = Path("runs"),
    reports: Annotated[Path, typer.Option(help="Where notebooks and report go.")] = Path("reports"),
    root: Roots = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Leave out other runs: model=vbpr, also dataset=, profile=, seed=, control=; repeatable."),
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes at a time; by default one a core or GPU.")] = None,
    device: Annotated[str, typer.Option(help="In place of the matrix's: cpu, cuda (every GPU), cuda:1, ...")] = "",
    dask: Annotated[str, typer.Option(help="Address of a Dask scheduler whose workers do the runs.")] = "",
    retry: Annotated[str, typer.Option(help="'failed': run again what has failed.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Run again also what is done; its results are lost.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print where every notebook stands and stop.")] = False,
) -> None:
    """Run datasets x models x profiles x seeds and grids as notebooks, skip what is done, and write the report.

    A failed run is reported and left alone until its code, parameters or data change, or --retry failed.

    Example: imgrec run matrices/default.yaml --dry-run
    """
    from imgrec_lib.matrix import driver, plan, read_matrix, rows, run_matrix, view, with_roots
    from imgrec_lib.report import write_report

    if retry not in ("", "failed"):
        raise InputError(f"--retry takes 'failed', not {retry!r}.")
    content = with_roots(read_matrix(matrix), root or [])
    if device:
        content = replace(content, devices=[device])
    chosen = _conditions(only)
    if dry_run:
        made = plan(content, runs, reports, only=chosen)
        for line in view.lines(rows(made, runs), driver.places_of(content, workers)):
            typer.echo(line)
        for name in made.unread:
            typer.echo(f"dataset {name} was not read yet, or has changed: none of its runs counts as done")
        return
    table = run_matrix(
        content, runs, reports, workers=workers, dask=dask, only=chosen, retry_failed=retry == "failed", force=force
    )
    finished = [task.folder.name for task in plan(content, runs, reports).trials if task.state == "done"]
    if finished:
        typer.echo(f"open {write_report(runs, reports, only=finished)}")
    failed = [row for row in table if row.state == "failed"]
    for row in failed:
        typer.echo(f"failed: {row.name}: {row.detail}", err=True)
    if failed:
        raise typer.Exit(1)


@app.command()
def watch(
    matrix: Annotated[Path, typer.Argument(help="The matrix file that another process runs.")],
    runs: Annotated[Path, typer.Option(help="Its --runs.")] = Path("runs"),
    reports: Annotated[Path, typer.Option(help="Its --reports.")] = Path("reports"),
    root: Roots = None,
) -> None:
    """Show how far a matrix is, from the records on disk, until nothing is left to do; Ctrl-C stops watching.

    Example: imgrec watch matrices/default.yaml
    """
    from imgrec_lib.matrix import watch_matrix

    watch_matrix(matrix, runs, reports, roots=root or [])


def _conditions(texts: list[str] | None) -> dict[str, list[str]]:
    """key=value texts as a dict of the admissible values of each key."""
    found: dict[str, list[str]] = {}
    for text in texts or []:
        key, equals, value = text.partition("=")
        if not equals or not key or not value:
            raise InputError(f"{text!r} is no condition: write key=value, such as model=vbpr.")
        found.setdefault(key, []).append(value)
    return found


def _assignments(texts: list[str] | None) -> dict[str, Any]:
    """name=value texts as a dict; a value is JSON where it can be read so (numbers, true, lists), else text."""
    values: dict[str, Any] = {}
    for text in texts or []:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InputError(f"{text!r} is no assignment: write name=value, such as factors=32.")
        try:
            values[name] = json.loads(value)
        except json.JSONDecodeError:
            values[name] = value
    return values


def _print(rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    cells = [{key: ", ".join(v) if isinstance(v, list) else str(v) for key, v in row.items()} for row in rows]
    for row in cells:
        name, *rest = row
        typer.echo(row[name])
        for key in rest:
            if row[key]:
                typer.echo(f"    {key:9} {row[key]}")


def _print_metrics(metrics: dict[str, dict[str, float | int | None]]) -> None:
    names = ("auc", "auc_strict", "hr@10", "ndcg@10", "cold_auc")
    typer.echo(f"{'protocol':14}" + "".join(f"{name:>12}" for name in names))
    for protocol, values in metrics.items():
        cells = (values.get(name) for name in names)
        typer.echo(f"{protocol:14}" + "".join(f"{'-' if v is None else f'{v:.4f}':>12}" for v in cells))


def main() -> None:
    """Entry point: bad input prints its sentence and exits with status 2."""
    try:
        app()
    except InputError as error:
        typer.echo(f"imgrec: {error}", err=True)
        sys.exit(2)
