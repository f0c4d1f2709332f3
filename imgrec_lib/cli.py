"""The console script `imgrec`: each command is a thin front of a library function."""

from __future__ import annotations

import ast
import json
import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from imgrec_lib import __version__
from imgrec_lib.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from imgrec_lib.matrix import Matrix
    from imgrec_lib.runs import Run

app = typer.Typer(
    help="Image-based fashion recommendation: reproduce, compare and extend visual recommenders.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Track = Annotated[
    list[str] | None,
    typer.Option(help="Also write finished runs to a tracker: mlflow, wandb or tensorboard; repeatable."),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress: results and errors alone.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Roots = Annotated[
    list[str] | None,
    typer.Option(help="File or folder of a dataset, in place of the matrix's: NAME=PATH, or PATH; repeatable."),
]
RunFolder = Annotated[Path, typer.Argument(help="The folder of a finished run.")]
Moved = Annotated[
    list[str] | None,
    typer.Option(
        "--root",
        help="Where the data lie now, if they were moved: PATH, or NAME=PATH for one of several datasets; repeatable.",
    ),
]


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"imgrec {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and stop.")
    ] = False,
) -> None:
    pass


@app.command()
def models(as_json: Json = False) -> None:
    """List the models.

    What each needs and uses, where it comes from, how faithful it is, its profiles.

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
def backbones(
    name: Annotated[str, typer.Argument(help="A backbone; without one: which there are.")] = "",
    weights: Annotated[
        str, typer.Option(help="As for train; what a network is can be told without its weights.")
    ] = "random",
    as_json: Json = False,
) -> None:
    """List the backbones, or say what one is.

    Size, preprocessing, licence and source, whether it reads text, and the blocks at which ImgRec-EtE can cut it.

    Example: imgrec backbones timm/convnext_tiny.fb_in22k
    """
    from imgrec_lib.features.backbones import FAMILIES, build_backbone, list_backbones

    if name:
        _print([build_backbone(name, weights=weights).card()], as_json)
        return
    own = [
        {
            "name": spec.name,
            "size": spec.size,
            "weights": list(spec.weights),
            "licence": spec.licence,
            "source": spec.source,
        }
        for spec in list_backbones().values()
    ]
    _print([*own, *({"name": form, "source": whose} for form, whose in FAMILIES.values())], as_json)


@app.command()
def datasets(as_json: Json = False) -> None:
    """List the dataset readers.

    What each reads, and its options.

    Example: imgrec datasets
    """
    from imgrec_lib.data import list_datasets

    rows = [
        {"name": card.name, "reads": card.title, "root": card.root, "options": sorted(card.options)}
        for card in list_datasets().values()
    ]
    _print(rows, as_json)


@app.command()
def pictures(
    dataset: Annotated[str, typer.Argument(help="A dataset of 'imgrec datasets', whose item table has addresses.")],
    root: Annotated[str, typer.Option(help="File or folder of the dataset.")] = "",
    out: Annotated[Path | None, typer.Option(help="Where the pictures go; by default images/ below the root.")] = None,
    option: Annotated[
        list[str] | None, typer.Option("-o", "--option", help="An option of the dataset, name=value; repeatable.")
    ] = None,
    most: Annotated[int, typer.Option(help="Pictures of an item, at most.", min=1)] = 1,
    connections: Annotated[int, typer.Option(help="Connections at a time.", min=1)] = 8,
    per_second: Annotated[float, typer.Option(help="Requests a second, at most.", min=0.01)] = 20.0,
    quiet: Quiet = False,
) -> None:
    """Download the pictures whose addresses an item table has.

    Again: what is missing is downloaded, and what is there is left alone. What failed, and why, is in failed.csv.

    Only http and https addresses of public hosts are followed.

    Example: imgrec pictures amazon2023 --root All_Beauty --most 3
    """
    from imgrec_lib.data import load_dataset
    from imgrec_lib.data.downloads import FAILED, download_pictures
    from imgrec_lib.data.storing import pictures_when_needed

    if out is None and not root:
        raise InputError("say with --out where the pictures go.")
    folder = out if out is not None else Path(root) / "images"
    with _warnings_as_notes(), pictures_when_needed():
        addresses = load_dataset(dataset, root or None, **_assignments(option)).picture_addresses
    found = download_pictures(
        addresses, folder, most=most, connections=connections, per_second=per_second, progress=not quiet
    )
    typer.echo(f"{found.done:,} pictures were downloaded to {folder}, and {found.there:,} were there before")
    if len(found.failed):
        typer.echo(f"{len(found.failed):,} failed: see {folder / FAILED}", err=True)
        if not found.done and not found.there:
            raise typer.Exit(1)


@app.command()
def train(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="The run's folder.")],
    model: Annotated[str, typer.Option(help="A model of 'imgrec models'.")] = "",
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
    backbone: Annotated[
        str, typer.Option(help="Where visual features come from: a backbone of 'imgrec backbones'.")
    ] = "efficientnet-lite0",
    weights: Annotated[str, typer.Option(help="default, random, a published name, a file or a folder.")] = "default",
    features: Annotated[
        list[str] | None,
        typer.Option(
            help="Features in place of the pictures': a file of vectors, pictures, text, categories or numbers, also "
            "NAME=FILE; repeatable."
        ),
    ] = None,
    feature_option: Annotated[
        list[str] | None, typer.Option(help="An option of the features, name=value; repeatable.")
    ] = None,
    control: Annotated[
        str, typer.Option(help="'shuffled pictures', of words 'shuffled features': give each item another's.")
    ] = "",
    warm_start: Annotated[
        Path | None,
        typer.Option(
            help="A finished run to start from: its weights by id, and its settings but for those given here."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "cpu",
    notebook: Annotated[bool, typer.Option(help="Run the notebook, or train alone, as under torchrun.")] = True,
    track: Track = None,
    quiet: Quiet = False,
) -> None:
    """Train and test one model.

    The training notebook is run, and kept; a stopped run goes on where it was.

    Example: imgrec train --dataset wardrobe --model imgrec-ft --seed 0 -p factors=32 --out runs/ft-0

    More epochs, or grown data: imgrec train --warm-start runs/ft-0 --out runs/ft-1

    Several processes or GPUs: torchrun --nproc-per-node 2 --no-python imgrec train --no-notebook --device cuda ...
    """
    from imgrec_lib.kernel_server import KernelServer

    server = KernelServer() if notebook and KernelServer.is_supported() else None
    if server is not None:
        server.start()  # what the notebook needs is imported while this process imports
        context.call_on_close(server.stop)

    from imgrec_lib.notebooks import run_notebook
    from imgrec_lib.request import Request
    from imgrec_lib.runs import open_run, train_run
    from imgrec_lib.tracking import check_trackers
    from imgrec_lib.training import distributed

    asked: dict[str, Any] = {
        "model": model,
        "profile": profile,
        "parameters": _assignments(parameter),
        "seed": seed,
        "device": device,
        "dataset": dataset,
        "root": root or None,
        "dataset_options": _assignments(option),
        "backbone": backbone,
        "weights": weights,
        "feature_options": _assignments(feature_option),
        "feature_files": _named_files(features),
        "control": control or None,
    }
    if warm_start is None:
        request = Request.from_json({name: value for name, value in asked.items() if name != "model" or value})
    else:
        own = open_run(warm_start).request
        options = {"parameters": "parameter", "dataset_options": "option", "feature_options": "feature_option"}
        options["feature_files"] = "features"
        for name, value in list(asked.items()):
            source = context.get_parameter_source(options.get(name, name))
            if source is not None and source.name == "DEFAULT" and name != "device":
                del asked[name]
            elif name in ("parameters", "dataset_options", "feature_options"):
                asked[name] = getattr(own, name) | value
        request = replace(own, varied={}, searched={}, warm_start=str(warm_start), **asked)
    request.check()
    check_trackers(track or [])
    if notebook:
        if distributed.launched():
            raise InputError("a notebook is one process: under torchrun, add --no-notebook.")
        values = request.to_parameters() | {"search": {}, "out": str(out.resolve())}
        del values["varied"]  # which is a search's
        run_notebook("03_train", values, out / "notebook.ipynb", progress=not quiet, server=server)
        _print_result(open_run(out))
        _track(open_run(out), track)
        typer.echo(f"open {out / 'notebook.ipynb'}; beside other runs: imgrec report {out.parent} --out reports")
        return
    with distributed.process_group(device) as own_device:
        first, own = distributed.rank() == 0, replace(request, device=own_device)
        progress = first and not quiet
        data, vectors = own.load(progress=progress)
        run = train_run(data, own, out, features=vectors, progress=progress)
        if first:
            _print_result(run)
            _track(run, track)


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run.")],
    root: Moved = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Test a finished run again.

    Its weights are loaded and evaluated on the test items, and every metric is printed.

    Example: imgrec evaluate runs/ft-0 --json
    """
    from imgrec_lib.evaluation import evaluate as evaluate_model
    from imgrec_lib.serving import open_trained

    trained = open_trained(_with_test_items(run), root=_moved(root), progress=not quiet)
    metrics = evaluate_model(trained.model, trained.dataset, seed=trained.run.record.seed).metrics
    if as_json:
        typer.echo(json.dumps(metrics, indent=2))
    else:
        _print_metrics(metrics)


Out = Annotated[
    Path | None, typer.Option(help="A .csv, .parquet or .jsonl file; without it a table is printed.", dir_okay=False)
]
Length = Annotated[int, typer.Option("-k", "--length", help="Items a list.")]


@app.command()
def recommend(
    run: RunFolder,
    out: Out = None,
    k: Length = 10,
    users: Annotated[str, typer.Option(help="Ids with commas between them, or a file with one a line; else all.")] = "",
    baskets: Annotated[
        Path | None, typer.Option(help="What new customers bought: a table with the columns user and item.")
    ] = None,
    include_owned: Annotated[bool, typer.Option("--include-owned", help="Also what a user has bought.")] = False,
    items: Annotated[str, typer.Option(help="Only these items: ids or a file.")] = "",
    without: Annotated[str, typer.Option(help="Not these items: ids or a file.")] = "",
    where: Annotated[
        list[str] | None, typer.Option(help="Only items with this value in the item table, column=value; repeatable.")
    ] = None,
    where_not: Annotated[
        list[str] | None, typer.Option(help="No items with this value in the item table, column=value; repeatable.")
    ] = None,
    one_per_group: Annotated[
        bool, typer.Option("--one-per-group", help="Of the variants of a product only the best.")
    ] = False,
    pictures: Annotated[
        Path | None,
        typer.Option(help="Pictures of new items, beside the catalogue: a file or a folder; file names are the ids."),
    ] = None,
    root: Moved = None,
    quiet: Quiet = False,
) -> None:
    """Write every user's best items.

    Users and items go by the catalogue's own ids; what a user has bought is left out.

    Example: imgrec recommend runs/ft-0 --out lists.csv -k 20 --where category=shoes
    """
    from imgrec_lib.serving import open_trained, with_pictures
    from imgrec_lib.serving.ids import read_ids

    trained = open_trained(run, root=_moved(root), progress=not quiet)
    if pictures is not None:
        trained = with_pictures(trained, _new_items(pictures))
    with _warnings_as_notes():
        lists = trained.recommend(
            read_ids(users) if users else None,
            k,
            baskets=baskets,
            include_owned=include_owned,
            items=read_ids(items) if items else None,
            without=read_ids(without) if without else (),
            where=_conditions(where),
            where_not=_conditions(where_not),
            one_per_group=one_per_group,
        )
    _write_or_print(lists, out)


@app.command("compare-lists")
def compare_lists(
    lists: Annotated[Path, typer.Argument(help="A table with the columns user, item, and rank or score.")],
    out: Annotated[Path, typer.Option(help="Where the record goes: a folder among those of the runs.")],
    run: Annotated[Path | None, typer.Option(help="A finished run, on whose data and split they are measured.")] = None,
    dataset: Annotated[str, typer.Option(help="In place of a run: a dataset of 'imgrec datasets'.")] = "",
    option: Annotated[
        list[str] | None, typer.Option("-o", "--option", help="An option of the dataset, name=value; repeatable.")
    ] = None,
    title: Annotated[str, typer.Option(help="What tables call the program that made them; else the file's name.")] = "",
    seed: Annotated[int, typer.Option(help="The program's seed: lists of several seeds are trials of one row.")] = 0,
    cutoff: Annotated[
        list[int] | None, typer.Option("-k", "--cutoff", help="Length of list to measure at; repeatable; else 10, 20.")
    ] = None,
    root: Moved = None,
    quiet: Quiet = False,
) -> None:
    """Evaluate the lists of any other program on our split.

    They become a row of the report and of the explorer, with every metric that lists allow.

    Example: imgrec compare-lists rectools.csv --run runs/ft-0 --title "RecTools iALS" --out runs/rectools
    """
    from imgrec_lib.evaluation.metrics import CUTOFFS
    from imgrec_lib.models import list_models
    from imgrec_lib.request import Request
    from imgrec_lib.runs import Inputs, check_roots
    from imgrec_lib.serving import compare_lists as compare

    if (run is None) == (not dataset):
        raise InputError("lists are measured on the data of a run or on a dataset: give --run or --dataset.")
    moved = _moved(root)
    if run is not None:
        opened = _with_test_items(run)
        check_roots(moved, [opened])
        data, request = Inputs(moved, not quiet).of(opened)[0], opened.request.at(moved)
    else:
        any_model = next(iter(list_models()))
        request = Request(any_model, dataset=dataset, dataset_options=_assignments(option)).at(moved)
        data = request.load_dataset(progress=not quiet)
    with _warnings_as_notes():
        found = compare(
            lists, data, out, title=title or lists.stem, request=replace(request, seed=seed), cutoffs=cutoff or CUTOFFS
        )
    for name, value in found.metrics["exact"].items():
        if value is not None:
            typer.echo(f"{name:30} {value:,}" if isinstance(value, int) else f"{name:30} {value:.4f}")


@app.command()
def refit(
    run: RunFolder,
    out: Annotated[Path, typer.Option(help="The new run's folder.")],
    root: Moved = None,
    quiet: Quiet = False,
) -> None:
    """Train a run's model for use: on all interactions.

    The chosen settings and number of epochs stay; held-out items are learnt from too, so nothing can be reported of it.

    Example: imgrec refit runs/ft-0 --out in-use/ft
    """
    from imgrec_lib.runs import open_run
    from imgrec_lib.runs import refit as refit_run

    refitted = refit_run(open_run(run), out, root=_moved(root), progress=not quiet)
    typer.echo(f"{refitted.record.title} on {refitted.record.dataset.training_interactions:,} interactions in {out}")


@app.command()
def similar(
    run: RunFolder,
    out: Out = None,
    k: Length = 10,
    items: Annotated[str, typer.Option(help="Ids with commas between them, or a file with one a line; else all.")] = "",
    by: Annotated[
        str,
        typer.Option(
            help="learned: as the model has learnt them; picture: by its features, or the name of one set. By default "
            "learned, and picture for a picture."
        ),
    ] = "",
    picture: Annotated[
        Path | None, typer.Option(help="In place of items: a picture, of something that is in no catalogue.")
    ] = None,
    root: Moved = None,
    quiet: Quiet = False,
) -> None:
    """Write the items most similar to each item, or to a picture.

    Example: imgrec similar runs/ft-0 --items 0110065001,0110065002 --by picture

    A photograph of yours: imgrec similar runs/ft-0 --picture dress.jpg
    """
    from imgrec_lib.serving import open_trained, similar_to_picture
    from imgrec_lib.serving.ids import read_ids

    if picture is not None and items:
        raise InputError("similar items of a picture or of items: give --picture or --items.")
    by = by or ("learned" if picture is None else "picture")

    trained = open_trained(run, root=_moved(root), pictures=by != "learned", progress=not quiet)
    if picture is not None:
        _write_or_print(similar_to_picture(trained, picture, k, by=by), out)
        return
    _write_or_print(trained.similar(read_ids(items) if items else None, k, by=by), out)


@app.command()
def score(
    run: RunFolder,
    pairs: Annotated[Path, typer.Argument(help="A table with the columns user and item.")],
    out: Out = None,
    root: Moved = None,
    quiet: Quiet = False,
) -> None:
    """Write the score of each pair of a user and an item.

    Example: imgrec score runs/ft-0 pairs.csv --out scores.csv
    """
    from imgrec_lib.serving import open_trained

    _write_or_print(open_trained(run, root=_moved(root), progress=not quiet).score(pairs), out)


@app.command()
def embed(
    run: RunFolder,
    out: Annotated[Path, typer.Option(help="A folder for items.parquet, users.parquet and what else is asked for.")],
    form: Annotated[
        str, typer.Option("--format", help="parquet, or safetensors with the ids in a text file.")
    ] = "parquet",
    index: Annotated[bool, typer.Option("--index", help="Also a faiss index of the items, items.faiss.")] = False,
    root: Moved = None,
    quiet: Quiet = False,
) -> None:
    """Write the vectors of users and items.

    The inner product of two is the score.

    Example: imgrec embed runs/ft-0 --out vectors --index
    """
    from imgrec_lib.serving import open_trained
    from imgrec_lib.serving.vectors import write_vectors

    for path in write_vectors(open_trained(run, root=_moved(root), progress=not quiet), out, form=form, index=index):
        typer.echo(path)


@app.command()
def export(
    run: RunFolder,
    out: Annotated[Path, typer.Option(help="A folder for item.onnx and, where users are baskets, user.onnx.")],
    root: Moved = None,
    quiet: Quiet = False,
) -> None:
    """Write the networks of a visual model as ONNX.

    They make the vector of a new item of its picture, and of a customer of a basket, wherever ONNX runs.

    Example: imgrec export runs/vbpr-0 --out towers
    """
    from imgrec_lib.serving import export_towers, open_trained

    with _warnings_as_notes():
        for path in export_towers(open_trained(run, root=_moved(root), progress=not quiet), out):
            typer.echo(path)


@app.command()
def serve(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run, or a link to it.")],
    host: Annotated[str, typer.Option(help="Where to listen; by default this machine alone can ask.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any that is free.")] = 8000,
    workers: Annotated[int, typer.Option(min=1, help="Processes that answer, each with the model in memory.")] = 2,
    token: Annotated[
        str, typer.Option(envvar="IMGREC_TOKEN", help="What requests must carry; without it one is made and printed.")
    ] = "",
    pictures: Annotated[
        bool, typer.Option("--pictures", help="Compare items by picture also where the model uses no pictures.")
    ] = False,
    root: Moved = None,
) -> None:
    """Answer questions about a run over HTTP.

    Recommendations for users and baskets, similar items, pictures; the page /docs says how to ask.

    A run that takes the place of the served one is served at once.

    Example: imgrec serve in-use/ft --port 8000
    """
    from imgrec_lib.serving.api import serve as serve_run

    serve_run(run, host=host, port=port, token=token or None, workers=workers, root=_moved(root), pictures=pictures)


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
    root: Moved = None,
    quiet: Quiet = False,
) -> None:
    """Write the report of finished runs.

    It is one HTML page, and the tables as Markdown, LaTeX and CSV, of all runs below a folder; its verdict is printed.

    Example: imgrec report runs --out reports

    For a repository: imgrec report runs/hm --out reports/hm --no-pictures --markdown reports/hm-week.md
    --title "A week of H&M" --insert README.md
    """
    from imgrec_lib.report import write_report

    page = write_report(
        runs,
        out,
        pictures=pictures,
        markdown=markdown,
        title=title,
        insert=insert,
        root=_moved(root),
        progress=not quiet,
    )
    _print_report(page)


@app.command()
def explore(
    runs: Annotated[
        Path | None, typer.Argument(help="A folder of finished runs; without it small ones are made.")
    ] = None,
    address: Annotated[
        str, typer.Option(help="What to show first, as in the page's address: 'user=anna&view=map'.")
    ] = "",
    root: Moved = None,
    port: Annotated[
        int, typer.Option(help="Where to listen, on this machine alone; a free one where it is taken.")
    ] = 8642,
    open_it: Annotated[bool, typer.Option("--open/--no-open", help="Open the browser.")] = True,
    notebook: Annotated[
        Path | None, typer.Option(help="Write notebook 09 with the same explorer there instead, and open no page.")
    ] = None,
) -> None:
    """See what runs recommend, to whom and why.

    The browser opens on the best run that sees pictures. Nobody but you, on this machine, can open the page.

    Example: imgrec explore runs
    """
    if notebook is not None:
        from imgrec_lib.notebooks import prepare_notebook

        places = {"runs": str(runs.absolute()) if runs else "", "root": _moved(root), "address": address}
        prepare_notebook("09_explore", places, notebook)
        typer.echo(f"open {notebook}")
        return
    from imgrec_lib.explorer.server import serve

    def load() -> Any:
        from imgrec_lib.explorer import Runs, example_runs

        return Runs(runs or example_runs(), root=_moved(root))

    with suppress(KeyboardInterrupt):
        serve(load, address=address, port=port, open_it=open_it, say=typer.echo)


@app.command()
def run(
    matrix: Annotated[Path, typer.Argument(help="A matrix file (YAML), or the name of one of imgrec's: 'default'.")],
    runs: Annotated[Path, typer.Option(help="Where the run folders go.")] = Path("runs"),
    reports: Annotated[Path, typer.Option(help="Where notebooks and report go.")] = Path("reports"),
    root: Roots = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Leave out other runs: seed=0, also dataset=, model=, profile=, control=; repeatable."),
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes at a time; by default one a core or GPU.")] = None,
    device: Annotated[str, typer.Option(help="In place of the matrix's: cpu, cuda (every GPU), cuda:1, ...")] = "",
    dask: Annotated[str, typer.Option(help="Address of a Dask scheduler whose workers do the runs.")] = "",
    retry: Annotated[str, typer.Option(help="'failed': run again what has failed.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Run again also what is done; its results are lost.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print where every notebook stands and stop.")] = False,
    track: Track = None,
    quiet: Quiet = False,
) -> None:
    """Run a matrix, and write its report.

    Datasets x models x profiles x seeds and searches; what is done is skipped. The end is the result:
    the best models with their intervals, what the numbers say, and where the report lies.

    A failed run is reported and left alone until its code, parameters or data change, or --retry failed.

    Example: imgrec run default --dry-run
    """
    from imgrec_lib.matrix import read_matrix, with_roots

    if retry not in ("", "failed"):
        raise InputError(f"--retry takes 'failed', not {retry!r}.")
    content = with_roots(read_matrix(matrix), root or [])
    if device:
        content = replace(content, devices=[device])
    if track:
        content = replace(content, track=track)
    _run(
        content, runs, reports, _conditions(only), workers=workers, dask=dask, retry_failed=retry == "failed",
        force=force, dry_run=dry_run, quiet=quiet,
    )  # fmt: skip


@app.command()
def search(
    model: Annotated[list[str], typer.Option(help="A model of 'imgrec models'; repeatable.")],
    dataset: Annotated[str, typer.Option(help="A dataset of 'imgrec datasets'.")] = "wardrobe",
    root: Annotated[str, typer.Option(help="File or folder of the dataset.")] = "",
    option: Annotated[
        list[str] | None, typer.Option("-o", "--option", help="An option of the dataset, name=value; repeatable.")
    ] = None,
    trials: Annotated[
        int | None, typer.Option(help="Configurations of each model; 10 where no minutes are set.")
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="Minutes of training of each model.")] = None,
    sampler: Annotated[str, typer.Option(help="tpe, random or grid.")] = "tpe",
    pruner: Annotated[str, typer.Option(help="What ends a training early: none, median, halving, hyperband.")] = "none",
    space: Annotated[
        list[str] | None,
        typer.Option(
            help="MODEL.PARAMETER=[values] or {low: 1e-4, high: 0.1, log: true}; repeatable; else the card's."
        ),
    ] = None,
    choose_by: Annotated[str, typer.Option(help="The validation metric: auc, ndcg@10, hr@20, ...")] = "auc",
    seeds: Annotated[int, typer.Option(help="Trials of each model's best configuration.", min=1)] = 3,
    controls: Annotated[
        bool, typer.Option(help="Also each model that uses pictures with shuffled ones, at its best configuration.")
    ] = True,
    features: Annotated[
        list[str] | None,
        typer.Option(help="A file of vectors in place of the pictures' features: FILE or NAME=FILE; repeatable."),
    ] = None,
    runs: Annotated[Path, typer.Option(help="Where the run folders go.")] = Path("runs"),
    reports: Annotated[Path, typer.Option(help="Where notebooks and report go.")] = Path("reports"),
    workers: Annotated[int | None, typer.Option(help="Processes at a time; by default one a core or GPU.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda (every GPU), cuda:1, ...")] = "cpu",
    dask: Annotated[str, typer.Option(help="Address of a Dask scheduler whose workers do the runs.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print where every run stands and stop.")] = False,
    quiet: Quiet = False,
) -> None:
    """Search models with equal budgets, and compare them.

    Configurations are chosen by validation alone. The best of each model is trained with several seeds and tested, and
    the report is written. Again with a larger budget, it goes on.

    Example: imgrec search --dataset table --root my-shop --model item-knn --model bpr-mf --model imgrec-ft
    """
    from imgrec_lib.matrix.definition import matrix_of, yaml_value
    from imgrec_lib.models import model_card

    how: dict[str, Any] = {"models": [name for name in model if model_card(name).space], "sampler": sampler}
    how |= {"pruner": pruner, "space": {}}
    how |= {key: value for key, value in (("trials", trials), ("minutes", minutes)) if value is not None}
    for name, text in _texts(space).items():
        of, dot, parameter = name.partition(".")
        if not dot:
            raise InputError(f"{name!r} names no hyper-parameter of a model: write MODEL.PARAMETER=VALUES.")
        how["space"].setdefault(of, {})[parameter] = yaml_value(text)
    content = {
        "datasets": {dataset: {"root": root, "options": _assignments(option)}},
        "models": model,
        "seeds": list(range(seeds)),
        "controls": [name for name in model if controls and "features" in model_card(name).uses],
        "features": _named_files(features),
        "search": how,
        "choose_by": choose_by,
        "device": device,
    }
    matrix = matrix_of(content, Path("this search"))
    _run(matrix, runs, reports, {}, workers=workers, dask=dask, dry_run=dry_run, quiet=quiet)


def _run(
    content: Matrix,
    runs: Path,
    reports: Path,
    chosen: dict[str, list[str]],
    *,
    workers: int | None,
    dask: str,
    retry_failed: bool = False,
    force: bool = False,
    dry_run: bool,
    quiet: bool,
) -> None:
    """Run a matrix, write the report, and say what failed; or say what would be run."""
    from imgrec_lib.matrix import driver, plan, rows, run_matrix, view
    from imgrec_lib.report import write_report

    if dry_run:
        made = plan(content, runs, reports, only=chosen)
        for line in view.lines(rows(made, runs), driver.places_of(content, workers)):
            typer.echo(line)
        for name in made.unread:
            typer.echo(f"dataset {name} was not read yet, or has changed: none of its runs counts as done")
        return
    table = run_matrix(
        content,
        runs,
        reports,
        workers=workers,
        dask=dask,
        only=chosen,
        retry_failed=retry_failed,
        force=force,
        progress=not quiet,
    )
    finished = [task.folder.name for task in plan(content, runs, reports).trials if task.state == "done"]
    if finished:
        _print_report(write_report(runs, reports, only=finished, progress=not quiet))
    failed = [row for row in table if row.state == "failed"]
    for row in failed:
        typer.echo(f"failed: {row.name}: {row.detail}", err=True)
    if failed:
        raise typer.Exit(1)


@app.command()
def watch(
    matrix: Annotated[
        Path, typer.Argument(help="The matrix that another process runs: a file, or a name of imgrec's.")
    ],
    runs: Annotated[Path, typer.Option(help="Its --runs.")] = Path("runs"),
    reports: Annotated[Path, typer.Option(help="Its --reports.")] = Path("reports"),
    root: Roots = None,
) -> None:
    """Watch a matrix that runs elsewhere.

    It is read from the records on disk, until nothing is left to do; Ctrl-C stops watching.

    Example: imgrec watch default
    """
    from imgrec_lib.matrix import watch_matrix

    watch_matrix(matrix, runs, reports, roots=root or [])


@app.command()
def cache(
    action: Annotated[str, typer.Argument(help="'list', or 'prune': delete what was long unused.")] = "list",
    unused_for: Annotated[float, typer.Option(help="Prune: days; 0 deletes everything.")] = 30,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Prune: say what would go and delete nothing.")] = False,
    as_json: Json = False,
) -> None:
    """List what is kept in the cache, or make it smaller.

    Pictures, features and activations are kept there; all of them can be made again.

    Example: imgrec cache prune --unused-for 7
    """
    from imgrec_lib.cache import list_cache, prune_cache
    from imgrec_lib.files import default_cache

    if action not in ("list", "prune"):
        raise InputError(f"imgrec cache takes 'list' or 'prune', not {action!r}.")
    kept = prune_cache(unused_for, dry_run=dry_run) if action == "prune" else list_cache()
    if as_json:
        typer.echo(json.dumps([vars(each) | {"path": str(each.path)} for each in kept], indent=2))
        return
    for each in kept:
        typer.echo(
            f"{each.n_bytes / 1e6:10,.1f} MB  {each.days_unused:5.0f} days unused  {each.kind:12} {each.path.name}"
        )
    verb = {("list", False): "kept", ("prune", True): "would go"}.get((action, dry_run), "deleted")
    total = sum(each.n_bytes for each in kept)
    typer.echo(f"{total / 1e6:10,.1f} MB {verb} in {default_cache()}")


@app.command()
def doctor(
    runs: Annotated[
        Path | None, typer.Argument(help="A folder of runs, of which to say whether their data are there.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what is installed, and what is wrong with it.

    Versions, devices, kernel, cache, disk and data, as plain text that a report of a fault may quote.

    Example: imgrec doctor
    """
    from imgrec_lib.doctor import as_text, diagnosis

    found = diagnosis(runs)
    typer.echo(json.dumps(found, indent=2) if as_json else as_text(found))
    if found["problems"]:
        raise typer.Exit(1)


def _track(run: Run, trackers: list[str] | None) -> None:
    from imgrec_lib.tracking import track

    for name in trackers or []:
        typer.echo(f"{name}: {track(run, name)}")


@contextmanager
def _warnings_as_notes() -> Iterator[None]:
    """Print what the library warns of as a line, without the line of code that it comes from."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield
    for warning in caught:
        typer.echo(f"imgrec: {warning.message}", err=True)


def _write_or_print(table: pd.DataFrame, out: Path | None) -> None:
    from imgrec_lib.serving.ids import write_table

    if out is None:
        typer.echo(table.to_string(index=False))
        return
    write_table(table, out)
    typer.echo(f"{len(table):,} rows in {out}")


def _new_items(path: Path) -> dict[str, Path]:
    """A picture, or all of a folder, by the names of the files without their endings."""
    from imgrec_lib.data.pictures import list_pictures

    found: dict[str, Path] = {}
    for each in list_pictures(path) if path.is_dir() else [path]:
        if each.stem in found:
            raise InputError(f"{found[each.stem]} and {each} would be the same item {each.stem!r}: rename one.")
        found[each.stem] = each
    return found


def _conditions(texts: list[str] | None) -> dict[str, list[str]]:
    """key=value texts as a dict of the admissible values of each key."""
    found: dict[str, list[str]] = {}
    for text in texts or []:
        key, equals, value = text.partition("=")
        if not equals or not key or not value:
            raise InputError(f"{text!r} is no condition: write key=value, such as seed=0.")
        found.setdefault(key, []).append(value)
    return found


def _with_test_items(folder: Path) -> Run:
    """The finished run in a folder, on whose test items something is to be measured.

    Raises:
        InputError: it has none, because it was trained on all interactions.
    """
    from imgrec_lib.runs import open_run

    run = open_run(folder)
    if run.record.stage == "refit":
        raise InputError(
            f"run {run.name}, which imgrec refit made, was trained on all interactions, held-out items included, and "
            "so has no test items: name the run that it was made from."
        )
    return run


def _moved(texts: list[str] | None) -> dict[str, str]:
    """PATH or NAME=PATH texts as absolute paths by name, see `Request.at`; a path alone has the name ""."""
    moved: dict[str, str] = {}
    for text in texts or []:
        name, path = _named(text)
        if name in moved:
            raise InputError(f"--root has two places for {name or 'all datasets'}: write NAME=PATH for each dataset.")
        moved[name] = str(Path(path).expanduser().absolute())
    return moved


def _texts(given: list[str] | None) -> dict[str, str]:
    """name=text texts as a dict."""
    found: dict[str, str] = {}
    for text in given or []:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InputError(f"{text!r} is no assignment: write name=value, such as factors=32.")
        found[name] = value
    return found


def _named_files(texts: list[str] | None) -> dict[str, str]:
    """FILE or NAME=FILE texts as files by name; the name of a file alone is its own without ending."""
    files: dict[str, str] = {}
    for text in texts or []:
        name, path = _named(text)
        files[name or Path(path).stem] = path
    return files


def _named(text: str) -> tuple[str, str]:
    """The name and the path of NAME=PATH; of a path alone, which may have an = of its own, the name is ""."""
    name, equals, path = text.partition("=")
    return (name, path) if equals and re.fullmatch(r"[\w.-]+", name) else ("", text)


def _assignments(texts: list[str] | None) -> dict[str, Any]:
    """name=value texts as a dict."""
    return {name: _value(text) for name, text in _texts(texts).items()}


def _value(text: str) -> Any:
    """What a text stands for: JSON or Python where it can be read so (numbers, true, lists, None), else the text."""
    for read in (json.loads, ast.literal_eval):
        with suppress(ValueError, SyntaxError, RecursionError, MemoryError):
            value = read(text)
            if isinstance(value, bool | int | float | str | list | dict | None):
                return value
    return text


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


def _print_result(run: Run) -> None:
    """What came out of a run: what it started from, the metric that it was chosen by, all protocols."""
    from imgrec_lib.results import Results, Standings
    from imgrec_lib.results.trials import metric_heading
    from imgrec_lib.runs.warm import started_in_words

    if run.record.started_from is not None:
        typer.echo(started_in_words(run.record.started_from))
    results = Results.of([run])
    if results.ranked:
        standings = Standings(results)
        (label,) = standings.contestants
        heading = metric_heading(standings.metric)
        typer.echo(f"{label} on {run.record.dataset.name}: {heading} {standings.in_words(label)}, 95 % over the users")
    _print_metrics(run.metrics)


def _print_report(page: Path) -> None:
    """The verdict of a report, and where it lies."""
    typer.echo((page.parent / "verdict.txt").read_text(encoding="utf-8").rstrip())
    typer.echo(f"open {page}")


def _print_metrics(metrics: dict[str, dict[str, float | int | None]]) -> None:
    names = ("auc", "auc_strict", "hr@10", "ndcg@10", "cold_auc")
    typer.echo(f"{'protocol':14}" + "".join(f"{name:>12}" for name in names))
    for protocol, values in metrics.items():
        cells = (values.get(name) for name in names)
        typer.echo(f"{protocol:14}" + "".join(f"{'-' if v is None else f'{v:.4f}':>12}" for v in cells))


def _at_home(text: str) -> str:
    """An argument in which `~`, at its start or behind `NAME=`, is home; a shell replaces the first alone."""
    name, path = re.fullmatch(r"([\w.-]*=)?(.*)", text, re.DOTALL).groups("")  # type: ignore[union-attr]
    return name + os.path.expanduser(path) if path == "~" or path.startswith("~/") else text


def main() -> None:
    """Entry point: bad input prints its sentence and exits with status 2."""
    try:
        app([_at_home(text) for text in sys.argv[1:]])
    except InputError as error:
        typer.echo(f"imgrec: {error}", err=True)
        sys.exit(2)
