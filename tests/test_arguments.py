"""Every public function, method and constructor, each argument wrong in many ways: what comes is one sentence."""

from __future__ import annotations

import importlib
import inspect
import math
import pkgutil
import re
import typing
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from commands import call
from markupsafe import Markup
from PIL import Image
from torch import Tensor

import imgrec_lib
from imgrec_lib import InputError, Request, options
from imgrec_lib.evaluation import PROTOCOLS, evaluate
from imgrec_lib.explorer import Answer, Explorer, ItemMap, Occlusion, Ranking, Runs, State
from imgrec_lib.features import Activations, AttributeLabels, BackboneSpec, FeatureMaps, build_backbone
from imgrec_lib.features.attributes import Heads, Regions
from imgrec_lib.features.backbones import Preprocessing
from imgrec_lib.features.controls import with_control
from imgrec_lib.gallery import Cell, Gallery, Row
from imgrec_lib.generation import GAN, Design, GANSettings, Pictures, PreferenceSettings, train_gan
from imgrec_lib.matrix import Data, Matrix, Task, plan, read_matrix
from imgrec_lib.matrix.view import Row as MatrixRow
from imgrec_lib.models import model_card
from imgrec_lib.models.base import Recommender, SeenAttribute
from imgrec_lib.results import Results, Standings
from imgrec_lib.runs import Inputs, train_run
from imgrec_lib.search import Search, search
from imgrec_lib.training import Checkpoint, FitResult

WRONG: dict[str, Any] = {
    "None": None,
    "an object": object(),
    "a negative number": -1,
    "zero": 0,
    "not a number": math.nan,
    "an empty text": "",
    "an unknown name": "no such name",
    "a missing path": Path("no/such/place"),
    "a list of nothing": [],
}

WRONG_ARRAYS: dict[str, Any] = {
    "three dimensions": np.zeros((2, 2, 2), np.float32),
    "one number": np.array(1.0),
    "texts": np.array(["a", "b"]),
    "a tensor of three dimensions": torch.zeros(2, 2, 2),
    "indices beyond the data": np.array([10**6]),
    "a tensor of indices beyond the data": torch.tensor([10**6]),
    "indices below the data": np.array([-7]),
    "an index beyond the data": 10**6,
}
"""What arguments that declare an array's form or the range of an index are given."""

HEAVY = {
    "build_backbone": "builds a network",
    "example_runs": "trains",
    "export_towers": "traces networks and runs them",
    "extract_features": "looks at all pictures",
    "find_regions": "looks at all pictures",
    "fit": "trains",
    "generation_quality": "looks at pictures",
    "item_features": "looks at all pictures",
    "picture_features": "looks at pictures",
    "refit": "trains",
    "run_matrix": "executes notebooks",
    "search": "trains",
    "serve": "serves until it is stopped",
    "shared_page": "makes a page for every view",
    "text_features": "weighs all words",
    "train": "trains",
    "train_gan": "trains",
    "train_heads": "looks at all pictures",
    "train_run": "trains",
    "trunk_activations": "looks at all pictures",
    "try_out": "trains",
    "watch_matrix": "watches until it is stopped",
    "write_report": "writes a report",
}
"""What right arguments set to long work, and which: it gets wrong types and values out of bounds alone."""

EXEMPT = {
    "Backbone": "made by build_backbone alone, which is tried",
    "PictureScorer.score_pictures": "a protocol's, which is never called",
}
"""What is not tried, and why."""


class Model(Recommender):
    """A model that answers all that figures ask of one."""

    def scorer(self, times: Tensor | None = None) -> Any:
        return self

    def block(self, users: Tensor) -> Tensor:
        return torch.arange(50.0).repeat(len(users), 1)

    def pairs(self, users: Tensor, items: Tensor) -> Tensor:
        return items.float()

    def attribute_attention(self, users: Tensor, items: Tensor) -> dict[str, Tensor]:
        return {"colour": torch.ones(items.shape)}

    def seen_attributes(self, item: int) -> list[SeenAttribute]:
        return [SeenAttribute("colour", "red", np.array([0, 0, 1, 1], np.float32), np.ones((2, 2), np.float32))]

    def score_pictures(self, users: Tensor, pictures: Tensor) -> Tensor:
        return pictures.mean((1, 2, 3))


def packages() -> list[str]:
    """The packages that offer something."""
    found = [each.name for each in pkgutil.walk_packages(imgrec_lib.__path__, "imgrec_lib.") if each.ispkg]
    return ["imgrec_lib", *(name for name in found if hasattr(importlib.import_module(name), "__all__"))]


def calls(package: str) -> Iterator[tuple[str, Any, Callable[..., Any]]]:
    """What is offered and defined in a package: its name, the class of a constructor or method, and the function."""
    for name in importlib.import_module(package).__all__:
        offered = getattr(importlib.import_module(package), name)
        home = getattr(offered, "__module__", "")
        if not home.startswith("imgrec_lib") or package != max(
            (each for each in packages() if f"{home}.".startswith(f"{each}.")), key=len
        ):
            continue
        if inspect.isclass(offered):
            for own in dict.fromkeys(("__init__", "__call__", *vars(offered))):
                static = inspect.getattr_static(offered, own, None)
                function = static.__func__ if isinstance(static, classmethod) else static
                if hasattr(function, "checks_its_arguments"):
                    yield f"{name}.{own}".removesuffix(".__init__"), offered, function
        elif inspect.isroutine(offered):
            yield name, None, offered


@dataclass
class Known:
    """Right arguments: by "function.parameter", or by the parameter's name, of which the first that fits is taken."""

    values: dict[str, tuple[Any, ...]]
    instances: dict[type, Any]

    def of(self, name: str, kind: Any, function: Callable[..., Any]) -> dict[str, Any]:
        given: dict[str, Any] = dict(*self.values.get(f"{name}.**", ()))
        if kind is not None and name == kind.__name__ and is_dataclass(kind) and kind in self.instances:
            return {field.name: getattr(self.instances[kind], field.name) for field in fields(kind) if field.init}
        hints = hints_of(function)
        for parameter in inspect.signature(function).parameters.values():
            if (
                parameter.name in ("self", "cls", "root") and f"{name}.{parameter.name}" not in self.values
            ) or parameter.kind in (
                inspect.Parameter.VAR_KEYWORD,
                inspect.Parameter.VAR_POSITIONAL,
            ):
                continue
            found = self.values.get(f"{name}.{parameter.name}", self.values.get(parameter.name, ()))
            hint = hints.get(parameter.name, Any)
            fitting = [value for value in found if admitted(value, hint)]
            if fitting:
                given[parameter.name] = fitting[0]
            elif parameter.default is inspect.Parameter.empty:
                raise LookupError(f"no right value of {name}.{parameter.name}: {hint}")
        return given

    def bound(self, name: str, kind: Any, function: Callable[..., Any]) -> Callable[..., Any]:
        """What is called: the function, the class, or the method of a right instance."""
        own = name.partition(".")[2]
        if kind is None or not own:
            return kind or function
        static = inspect.getattr_static(kind, own)
        return getattr(
            kind
            if isinstance(static, classmethod)
            else next(each for each in self.instances.values() if isinstance(each, kind)),
            own,
        )


def admitted(value: Any, hint: Any) -> bool:
    """Whether a signature admits a value."""
    try:
        return any(options._fits(given, hint) for given in options._readings(value))
    except InputError:
        return False


def hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    unknown: dict[str, Any] = {}
    while True:
        try:
            return typing.get_type_hints(inspect.unwrap(function), localns=unknown, include_extras=True)
        except NameError as error:
            unknown[str(error.name)] = Any


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Known:
    folder = tmp_path_factory.mktemp("arguments")
    small = {"n_users": 40, "n_items": 50, "image_size": 32}
    request = Request(
        "vbpr",
        parameters={"factors": 2, "visual_factors": 2, "epochs": 1},
        dataset="wardrobe",
        dataset_options=small,
        feature_options={"size": 32},
    )
    dataset, features = request.load(progress=False)
    assert features is not None and dataset.images is not None
    run = train_run(dataset, request, folder / "runs" / "vbpr", features=features, progress=False)
    study, _ = search(dataset, Request("ease"), Search({"l2": [1.0, 10.0]}), folder / "search", progress=False)
    shuffled = replace(request, control="shuffled pictures")
    train_run(
        dataset,
        shuffled,
        folder / "runs" / "shuffled",
        features=with_control(features, shuffled.control),
        progress=False,
    )
    train_run(dataset, Request("poprank"), folder / "runs" / "popular", progress=False)
    runs = Runs(folder / "runs")
    trained = runs.open("vbpr")
    results = Results.of(runs.by_name.values())
    data = dataset.training_data(features)
    backbone = build_backbone(weights="random", size=32)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
    assert dataset.categories is not None
    names = tuple(dataset.categories[1][:2])
    pictures = Pictures(pixels, np.arange(8) % 2, names, np.arange(8))
    settings = GANSettings(latent=3, channels=2, epochs=1, batch_size=4)
    gan = GAN(16, pictures.names, settings)
    numbers = rng.normal(size=(3, 2))
    design = Design(1, 1, pixels[:6].reshape(3, 2, 16, 16, 3), numbers, numbers, numbers, rng.normal(size=(3, 2, 3)))
    gallery = Gallery("items", (Row("one", (Cell(0, ("shoe",), 0.5),)),), dataset.images)
    vectors = torch.from_numpy(rng.normal(size=(50, 4)).astype(np.float32))
    labels = AttributeLabels(("colour",), (("red", "blue"),), np.arange(50).reshape(50, 1) % 2)
    heads = Heads(torch.zeros(2, backbone.activation_shape[0]), torch.zeros(2), (2,))
    maps = FeatureMaps(dataset.images, backbone, "recompute", None, False)
    model = Model()
    matrix = Matrix(models=["bpr-mf"], seeds=[0])
    optimiser = torch.optim.Adam([torch.zeros(2, requires_grad=True)])
    table = pd.DataFrame({"user": dataset.user_ids[:2], "item": dataset.items["item"][:2]})
    (folder / "lists.csv").write_text(table.assign(rank=1).to_csv(index=False))
    (folder / "matrix.yaml").write_text("models: [bpr-mf]\n")
    nbformat.write(nbformat.v4.new_notebook(), folder / "notebook.ipynb")
    state = State(run="vbpr")
    instances: dict[type, Any] = {
        type(each): each
        for each in (
            dataset, features, request, run, trained, runs, state, run.record, run.record.cost, run.record.dataset,
            run.record.validation, study, study.search, results, Standings(results), gallery, gallery.rows[0],
            gallery.rows[0].cells[0], backbone, maps, labels, heads, gan, pictures, design, settings, matrix, Data(),
            PreferenceSettings(), Checkpoint({}, {}), Inputs(progress=False), model_card("bpr-mf"),
            train_gan(pictures, folder / "gan", settings, progress=False),
            Activations(lambda items: torch.zeros(len(items), 1), 1), PROTOCOLS["exact"],
            Preprocessing((0.5,), (0.5,)), BackboneSpec("a", 32, "imagenet", "mean", "MIT", "here"),
            imgrec_lib.list_datasets()["wardrobe"], evaluate(trained.model, dataset),
            Answer(Markup("a"), state, "a", ()),
            ItemMap("map", numbers, np.arange(3), np.array(list("abc")), None),
            Occlusion(1.0, numbers, np.zeros((2, 4)), (0, 0), 0.5, 1, 2),
            Ranking(np.arange(2), np.arange(50), np.zeros(50, np.float32)),
            Regions(numbers, numbers, numbers, numbers), FitResult(run.curve, {}, 1, 1, 1.0),
            MatrixRow("trial", {}, "done"),
            Task("data", {"dataset": "wardrobe"}, "01_data", {}, folder / "a.ipynb", ""),
            Explorer(runs, state), imgrec_lib.ValidationMetrics(dataset), imgrec_lib.ValidationAUC(dataset),
        )
    }  # fmt: skip
    values: dict[str, tuple[Any, ...]] = {
        "address": ("run=vbpr",),
        "after": (vectors,),
        "backbone": (backbone, "efficientnet-lite0"),
        "before": (vectors,),
        "boxes": (torch.tensor([[[0.0, 0.0, 1.0, 1.0]]]),),
        "Runs.on_the_same_data.name": ("vbpr",),
        "Runs.open.name": ("vbpr",),
        "Runs.is_open.name": ("vbpr",),
        "Runs.before_fine_tuning.name": ("vbpr",),
        "item_features.sources": ({"own": "categories"},),
        "root": (folder,),
        "check_dataset_options.root": (None,),
        "open_trained.root": (None,),
        "load_inputs.root": (None,),
        "Request.at.root": (None,),
        "Inputs.root": (None,),
        "write_report.root": (None,),
        "check_roots.root": (None,),
        "refit.root": (None,),
        "Runs.root": (None,),
        "read_features.ids": (dataset.items["item"].tolist(),),
        "by": ("learned",),
        "user_order.by": ("random",),
        "groups_of.by": ("category",),
        "cache": (folder / "cache",),
        "card": (imgrec_lib.list_models()["bpr-mf"],),
        "register_model.card": (replace(model_card("bpr-mf"), name="mine"),),
        "register_dataset.card": (imgrec_lib.DatasetCard("ours", "ours", "", "ours", "load"),),
        "check_needs.card": (model_card("bpr-mf"),),
        "attention_figure.table": (pd.DataFrame({"colour": [0.5, 0.6], "cut": [0.5, 0.4]}),),
        "classes": (2, ("red", "blue")),
        "codes": (torch.zeros(8, 1, dtype=torch.int64),),
        "comparison": (results.comparison,),
        "content": (b"{}",),
        "control": ("shuffled pictures",),
        "count": (1,),
        "data": (data, Data()),
        "datasets": ({"a": dataset},),
        "designed": (vectors[:1].numpy(),),
        "designs": ((design,),),
        "drawn": (1,),
        "features": (features,),
        "first": (trained, vectors.numpy()),
        "folder": (folder / "runs" / "vbpr",),
        "find_runs.folder": (folder / "runs",),
        "Runs.folder": (folder / "runs",),
        "load_gan.folder": (folder / "gan",),
        "train_gan.folder": (folder / "gan",),
        "frame": (table,),
        "groups": ((results,), {"a": {"b": torch.zeros(1)}}),
        "head": (("a",),),
        "held": (dataset.test,),
        "held_out": (0.5, pictures, np.arange(50) < 5),
        "how": (Search({"l2": [1.0, 10.0]}),),
        "html": (Markup("a"),),
        "identity": ("a",),
        "item": (1, "item-0001"),
        "item_ids": (dataset.items["item"].tolist(),),
        "items": ([1, 2], torch.tensor([1, 2]), np.array([1, 2])),
        "Trained.recommend.items": (["item-0001"],),
        "Trained.similar.items": (["item-0001"],),
        "nearest_items_gallery.items": (vectors.numpy(),),
        "k": (2,),
        "label": (1, results.rows[0].label),
        "labels": (labels, np.arange(8) % 2),
        "lists": (folder / "lists.csv",),
        "load": (lambda: runs,),
        "look_up": (torch.zeros,),
        "made": (plan(matrix, folder / "no-runs", folder / "reports"),),
        "maps": (maps, torch.rand(1, 1, 2, 2)),
        "most": (2,),
        "movement": (pd.DataFrame({"moved": [0.1], "neighbours_kept": [1.0], "popularity": [3]}),),
        "n": (2,),
        "n_users": (40,),
        "model": (trained.model, "bpr-mf", model),
        "name": ("bpr-mf", ),
        "load_dataset.name": ("wardrobe",),
        "load_dataset.**": (small | {"progress": False},),
        "check_dataset_options.name": ("wardrobe",),
        "check_metric.name": ("auc",),
        "build_backbone.name": ("efficientnet-lite0",),
        "check_backbone.name": ("efficientnet-lite0",),
        "Pictures.label.name": names,
        "names": (["default"],),
        "number": (1,),
        "optimiser": (optimiser,),
        "options": ({},),
        "out": (folder / "out",),
        "train_run.out": (folder / "runs" / "vbpr",),
        "train_run.model": (request,),
        "owned": (dataset.train,),
        "owner": ("a",),
        "pairs": (table, ((1, 2),)),
        "path": (folder / "journal",),
        "read_studies.path": (study.path,),
        "per_user": (run.per_user,),
        "picture": (folder / "picture.png",),
        "pictures": (pictures, pixels[None]),
        "with_pictures.pictures": ({"new": folder / "picture.png"},),
        "pixels": (pixels,),
        "pooled": (torch.rand(8, backbone.activation_shape[0]),),
        "positions": (numbers,),
        "predicted": (np.zeros((50, 1), np.int64),),
        "progress": (False, np.zeros((2, 2, 1, 4, 4, 3), np.uint8), {}),
        "protocol": ("exact",),
        "negative_lists.protocol": ("dvbpr-100",),
        "real": ((np.arange(3.0),),),
        "record": (run.record,),
        "region": ((0.0, 0.0, 1.0, 1.0),),
        "report": (folder / "reports",),
        "reports": (folder / "reports",),
        "request": (request,),
        "search.request": (Request("ease"),),
        "results": (results,),
        "roots": ((),),
        "rows": ((("a",),), results.rows),
        "picture_grid.rows": (("a",),),
        "run": (run,),
        "runs": (runs, (run,), folder / "no-runs"),
        "runs_folder": (folder / "runs",),
        "scorer": (trained.scorer, model),
        "design.scorer": (model,),
        "second": (trained, vectors.numpy()),
        "seconds": (1.0,),
        "seed": (0,),
        "settings": (settings, PreferenceSettings(), pd.DataFrame({"a": [1, 2]})),
        "share": (0.5,),
        "size": (16,),
        "extract_features.size": (32,),
        "build_backbone.size": (32,),
        "sizes": ((2,),),
        "source": (vectors.numpy(), folder / "picture.png"),
        "sources": ({},),
        "space": ({"l2": [1.0]},),
        "state": (state, "done"),
        "standings": (Standings(results),),
        "study": (study,),
        "table": (dataset.items,),
        "tensors": ({},),
        "text": ("item-0001",),
        "find_user.text": ("user-0001",),
        "title": ("a",),
        "trained": (trained,),
        "training": (pictures,),
        "user": (1,),
        "users": (np.array([1, 2]), [1, 2]),
        "score_picture.users": (["user-0001"],),
        "Trained.recommend.users": (["user-0001"],),
        "recommend.users": (["user-0001"],),
        "validate": (None,),
        "value": (0.5,),
        "values": ({"model": "bpr-mf"}, pd.Series([0.1, 0.2]), torch.zeros(8)),
        "read_space.values": ({"l2": [1.0]},),
        "vectors": (vectors,),
        "weights": ("random", torch.zeros(2, 1)),
        "activation_maps.maps": (torch.rand(1, 1, 2, 2),),
            "activation_maps.weights": (torch.zeros(1, 2, 1),),
        "keep": ("recompute",),
        "network_parameters.name": ("bpr-mf",),
        "profile": ("default",),
        "Matrix.profiles_of.names": (["bpr-mf"],),
        "Standings.gain.control": tuple(Standings(results).controlled),
        "read_checkpoint.identity": (None,),
        "discard_run.folder": (folder / "no-run",),
        "read_search.values": ({"trials": 3},),
        "notebook_page.path": (folder / "notebook.ipynb",),
        "read_checkpoint.path": (run.folder / "model.safetensors",),
        "read_matrix.path": (folder / "matrix.yaml",),
        "Record.from_json.content": ((run.folder / "run.json").read_bytes(),),
        "at_least": (0,),
        "number_features.dataset": (replace(dataset, items=dataset.items.assign(price=np.arange(50.0))),),
        "dataset": (dataset,),
        "images": (dataset.images,),
        "gan": (gan,),
        "heads": (heads,),
        "network": (backbone,),
        "matrix": (matrix,),
        "opened": (trained,),
        "mean": ((0.5,),), "std": ((0.5,),),
    }  # fmt: skip
    Image.fromarray(np.asarray(dataset.images.pixels[3])).save(folder / "picture.png")
    return Known(values, instances)


@pytest.mark.parametrize("package", packages())
def test_a_wrong_argument_gets_one_sentence(
    package: str, known: Known, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for added in (imgrec_lib.models.registry._added, imgrec_lib.data._added):  # what is registered goes again
        monkeypatch.setattr(added, "_registered", dict(added._registered))
    wrong: list[str] = []
    for name, kind, function in calls(package):
        if name in EXEMPT:
            continue
        called, right, hints = known.bound(name, kind, function), known.of(name, kind, function), hints_of(function)
        if name not in HEAVY and (came := answer_of(called, right)):
            wrong.append(f"{name} with right arguments: {came}")
        for parameter in inspect.signature(called).parameters.values():
            if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
                continue
            declared = [each for _, of in options._alternatives(hints.get(parameter.name, Any)) for each in of]
            has_form = any(isinstance(each, options.Array | options.Below) for each in declared)
            for what, value in (WRONG | (WRONG_ARRAYS if has_form else {})).items():
                fits = admitted(value, hints.get(parameter.name, Any))
                if name in HEAVY and fits:
                    continue
                came = answer_of(called, right | {parameter.name: value})
                is_sentence = came.startswith("InputError: ") and came.endswith((".", "?"))
                if ((came or not fits) and not is_sentence) or (not fits and parameter.name not in came):
                    wrong.append(f"{name} with {what} for {parameter.name}: {came or 'no error'}")
    assert not wrong, "\n".join(wrong)


def answer_of(called: Callable[..., Any], arguments: dict[str, Any]) -> str:
    """The exception of a call as text; empty where there is none."""
    by_name = dict(arguments)
    by_place = [
        by_name.pop(name)
        for name, each in inspect.signature(called).parameters.items()
        if each.kind is each.POSITIONAL_ONLY and name in by_name
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            called(*by_place, **by_name)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    return ""


TOO_EARLY = [
    (("factors=0",), "'factors' of bpr-mf must be int, at least 1, not 0"),
    (("batch_size=0",), "'batch_size' of bpr-mf must be int, at least 1, not 0"),
    (("evaluate_every=0",), "'evaluate_every' of bpr-mf must be int, at least 1, not 0"),
    (("learning_rate=NaN",), "'learning_rate' of bpr-mf must be float, above 0, not nan"),
    (("learning_rate=-1e-3",), "'learning_rate' of bpr-mf must be float, above 0, not -0.001"),
    (("learning_rate=1e-3", "--device", "mps"), "device 'mps' is not there"),
    (("learning_rate=1e-3", "--device", "cuda:9"), "device 'cuda:9' is not there"),
    (("learning_rate=1e-3", "--seed", "-1"), "'seed' of a request must be int, at least 0, not -1"),
    (("learning_rate=1e-3",), "there is no file"),
]
"""Arguments of `imgrec train`, and the sentence; the last are right, so that it is of the data, which are not there."""


@pytest.mark.parametrize(("arguments", "sentence"), TOO_EARLY)
def test_parameters_are_judged_before_data_are_looked_for(
    arguments: tuple[str, ...], sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ("--dataset", "hm", "--root", "/no/such/place", "--out", "out", "--no-notebook", "--quiet")
    status, _, said = call(monkeypatch, capsys, "train", "--model", "bpr-mf", *where, "-p", *arguments)
    assert status == 2 and sentence in said and said.count("\n") == 1


@pytest.mark.parametrize(("arguments", "sentence"), [each for each in TOO_EARLY if len(each[0]) == 1])
def test_a_matrix_is_judged_likewise(arguments: tuple[str, ...], sentence: str, tmp_path: Path) -> None:
    name, _, value = arguments[0].partition("=")
    text = "datasets: {hm: {dataset: hm, root: ~/no/such/place}}\nmodels: [bpr-mf]\n"
    path = tmp_path / "m.yaml"
    path.write_text(text + f"parameters: {{bpr-mf: {{{name}: {value.replace('NaN', '.nan')}}}}}\n")
    if sentence == "there is no file":
        matrix = read_matrix(path)
        assert matrix.parameters["bpr-mf"] == {"learning_rate": 1e-3}
        assert Path(matrix.datasets["hm"].root).expanduser() == Path.home() / "no/such/place"
    else:
        with pytest.raises(InputError, match=re.escape(sentence)):
            read_matrix(path)
