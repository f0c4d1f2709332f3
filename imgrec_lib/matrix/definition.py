"""The matrix file: what is to be run, in YAML, checked before any work starts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from imgrec_lib.data import list_datasets
from imgrec_lib.errors import InputError, shown, unknown_name
from imgrec_lib.evaluation.metrics import check_metric
from imgrec_lib.features import item_feature_options
from imgrec_lib.features.controls import SHUFFLED_FEATURES, SHUFFLED_PICTURES
from imgrec_lib.features.sets import PICTURES
from imgrec_lib.files import shipped_folder
from imgrec_lib.models import list_models, model_card, resolve_profile
from imgrec_lib.notebooks import notebook_options
from imgrec_lib.options import Count, Option, check_options, options_of
from imgrec_lib.request import Request
from imgrec_lib.search import Search, check_space, read_search, read_space, space_of

DEEPEST = 20
"""Levels of lists and mappings that a matrix may have."""

LONGEST_NAME = 100
"""Bytes of a dataset's name, which is a part of the names of folders, of at most 255."""

SHORT_FORMS = {"dataset": Option(str), "root": Option(str), "dataset_options": Option(dict), "device": Option(str),
    "grid": Option(dict), "search": Option(dict), "datasets": Option(dict),
}  # fmt: skip
"""Keys of a file that become entries of the `datasets`, the `devices` or the `search` of a `Matrix`."""


@dataclass(frozen=True)
class Data:
    """One dataset of a matrix.

    Attributes:
        dataset, root, options: the arguments of `load_dataset`.
        profiles: for models named without one, in place of the matrix's: a script may have other settings for each
            dataset; empty for the matrix's.
    """

    dataset: str = "wardrobe"
    root: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    profiles: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Matrix:
    """What to run.

    A file may write one dataset as `dataset`, `root` and `dataset_options`, one device as `device`, and `compare` as a
    list of names. It writes `search` as the attributes of `Search`, the same for all models, beside `models`, their
    names (by default all of the matrix that have a space), and `space`, by model, in place of what their cards say.
    `grid: {vbpr: {factors: [16, 64]}}` is short for a search that tries every combination.

    Attributes:
        datasets: by the name that the runs give it.
        models: names of models, or "name:profile"; "all" for every model.
        profiles: for models named without one: each of these that the model has.
        seeds: one trial of each configuration for each.
        controls: names of models that run once more with shuffled features: each item gets another item's.
        parameters: hyper-parameters and settings of training by model, e.g. {"bpr-mf": {"factors": 32}}.
        search: how the hyper-parameters of each model are searched, by its name; models without an entry are not.
            Every configuration is trained once, with the first seed; the trials are of the one that is best by
            `choose_by`.
        choose_by: the validation metric by which training stops and keeps its best weights, and by which the winner of
            a search is chosen: "auc", "ndcg@10", ...; None: what each profile says, and AUC for searches.
        ablations: by model, parameters that replace its own in further trials, e.g. {"vbpr": [{"l2": 0}]}.
        backbone, weights, feature_options: see `extract_features`.
        features: files of features by the name of each set, see `Request.feature_files`.
        feature_sets: several such, which are compared: a model that uses features runs once with each, e.g. {"words":
            {"text": "text"}, "both": {"picture": "pictures", "text": "text"}}; in place of `features`.
        devices: "cpu", "cuda" (every GPU that is visible) or single ones such as "cuda:1".
        runs_per_device: runs at a time on each GPU.
        track: experiment trackers to which finished trials are written, see `tracking.track`.
        compare: notebooks that read all trials of a dataset, executed at the end, with their parameters; where
            anything is searched, and this is not empty, the notebook of searches is executed too.
    """

    datasets: dict[str, Data] = field(default_factory=lambda: {"wardrobe": Data()})
    models: list[str] = field(default_factory=lambda: ["all"])
    profiles: list[str] = field(default_factory=lambda: ["default"])
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    controls: list[str] = field(default_factory=list)
    parameters: dict[str, dict[str, Any]] = field(default_factory=dict)
    search: dict[str, Search] = field(default_factory=dict)
    choose_by: str | None = None
    ablations: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    backbone: str = "efficientnet-lite0"
    weights: str = "default"
    feature_options: dict[str, Any] = field(default_factory=dict)
    features: dict[str, str] = field(default_factory=dict)
    feature_sets: dict[str, dict[str, str]] = field(default_factory=dict)
    devices: list[str] = field(default_factory=lambda: ["cpu"])
    runs_per_device: Count = 1
    track: list[str] = field(default_factory=list)
    compare: dict[str, dict[str, Any]] = field(default_factory=lambda: {"04_compare": {}, "05_neighbours": {}})

    def profiles_of(self, names: Iterable[str], data: Data) -> list[tuple[str, str]]:
        """Model and profile, on one dataset, of each name "model" or "model:profile"; "all" stands for every model.

        Raises:
            InputError: unknown model or profile, or a model that has none of the matrix's profiles.
        """
        pairs, profiles = [], data.profiles or self.profiles
        for name in [each for n in names for each in (list_models() if n == "all" else [n])]:
            model, _, profile = name.partition(":")
            card = model_card(model)
            found = [profile] if profile else [p for p in profiles if p in card.profiles]
            if not found:
                raise InputError(
                    f"model {model!r} has no profile of {', '.join(profiles)}: "
                    f"name one of its own, such as '{model}:{next(iter(card.profiles))}'."
                )
            for each in found:
                resolve_profile(model, each)
                pairs.append((model, each))
        return list(dict.fromkeys(pairs))

    def features_of(self, model: str) -> dict[str, dict[str, str]]:
        """The files of features that a model runs with, by the name of the comparison's part; "" where there is one."""
        if self.feature_sets and "features" in model_card(model).uses:
            return self.feature_sets
        return {"": self.features}

    def sees_pictures(self, data: Data) -> bool:
        """Whether a model that is run on one dataset sees its pictures, or features that are made of them."""
        models = {model for model, _ in self.profiles_of([*self.models, *self.controls], data)}
        return any(
            "images" in model_card(model).uses
            or ("features" in model_card(model).uses and any(map(of_pictures, self.features_of(model).values())))
            for model in models
        )

    def search_of(self, model: str, profile: str) -> Search | None:
        """How a model is searched around one of its profiles: around others than "default" where a space is given."""
        search = self.search.get(model)
        return search if search is not None and (profile == "default" or search.space != space_of(model)) else None

    def parameters_of(self, model: str, profile: str) -> dict[str, Any]:
        """What the matrix gives a model in place of its profile's values, `choose_by` included where it is trained."""
        chosen = {"choose_by": self.choose_by} if self.choose_by and model_card(model).profiles[profile].phases else {}
        return chosen | self.parameters.get(model, {})


def read_matrix(path: Path) -> Matrix:
    """Read a matrix from a YAML file whose keys are the attributes of `Matrix`.

    Args:
        path: the file; or the name, without ending, of a matrix that comes with the library ("default").

    Raises:
        InputError: missing or malformed file, unknown key, dataset, option, model, profile, parameter or notebook, or
            a value of the wrong type.
    """
    path = _matrix_file(Path(path))
    try:
        text = path.read_text(encoding="utf-8")
        _require_plain(path, text)
        content = _Loader(text).get_single_data()
    except OSError as error:
        raise InputError(
            f"there is no matrix file {path} ({error.strerror}): check the path, or name one of imgrec's: "
            f"{', '.join(_shipped())}."
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} must map names to values, such as 'dataset: wardrobe'.")
    return matrix_of(content, path)


def matrix_of(content: Mapping[str, Any], path: Path) -> Matrix:
    """The matrix of what a file says.

    Args:
        content: the file's keys and values; datasets, searches and short forms as a file writes them.
        path: the file, for sentences about it.

    Raises:
        InputError: see `read_matrix`.
    """
    content = dict(content)
    compare = content.get("compare")
    if isinstance(compare, list):
        content["compare"] = {str(name): {} for name in compare}
    content = check_options(f"matrix {path}", options_of(Matrix) | SHORT_FORMS, content)
    content["search"] = _searches(path, content, content.pop("grid", {}))
    content["datasets"] = _datasets(path, content)
    for short in ("dataset", "root", "dataset_options"):
        content.pop(short, None)
    if "device" in content:
        if "devices" in content:
            raise InputError(f"{path} has both 'device' and 'devices': keep one.")
        content["devices"] = [content.pop("device")]
    matrix = Matrix(**content)
    _check(path, matrix)
    return matrix


def _matrix_file(path: Path) -> Path:
    return path if path.is_file() else _shipped().get(str(path), path)


def _shipped() -> dict[str, Path]:
    """The matrices that come with the library, by name."""
    return {file.stem: file for file in sorted(shipped_folder("matrices").glob("*.yaml"))}


def yaml_value(text: str) -> Any:
    """A value as a matrix would read it.

    Raises:
        InputError: it is not YAML.
    """
    try:
        _require_plain(Path("a value"), text)
        return _Loader(text).get_single_data()
    except yaml.YAMLError as error:
        raise InputError(f"{text!r} is not YAML: {' '.join(str(error).split())}.") from None


class _Loader(yaml.SafeLoader):
    """YAML in which 1e-3 is a number, as in its version 1.2; in 1.1, which PyYAML reads, it is text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def _require_plain(path: Path, text: str) -> None:
    """Refuse what makes a small file cost as much as its writer likes: aliases of aliases, and deep nesting."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise InputError(f"{path} uses a YAML alias (*name), which a matrix may not: write the value out.")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise InputError(f"{path} is nested more than {DEEPEST} levels deep: a matrix is not.")


def with_roots(matrix: Matrix, roots: Iterable[str]) -> Matrix:
    """A matrix whose datasets lie elsewhere.

    Args:
        matrix: as read.
        roots: "NAME=PATH" for the dataset of that name, or "PATH" where there is one dataset.

    Raises:
        InputError: no dataset has that name, or a path alone could be that of several.
    """
    datasets = dict(matrix.datasets)
    for text in roots:
        name, equals, path = text.partition("=")
        if not equals and len(datasets) == 1:
            name, path = next(iter(datasets)), text
        elif not equals:
            raise InputError(f"root {text!r} could be that of {', '.join(datasets)}: write NAME=PATH.")
        if name not in datasets:
            raise unknown_name("dataset of this matrix", name, datasets)
        datasets[name] = replace(datasets[name], root=str(Path(path).expanduser().resolve()))
    return replace(matrix, datasets=datasets)


def _datasets(path: Path, content: Mapping[str, Any]) -> dict[str, Data]:
    short = {key: content[key] for key in ("dataset", "root", "dataset_options") if key in content}
    if "datasets" not in content:
        reader = short.get("dataset", "wardrobe")
        found = {reader: Data(reader, short.get("root", ""), short.get("dataset_options", {}))}
    elif short:
        raise InputError(f"{path} has both 'datasets' and {next(iter(short))!r}: write it below one of the datasets.")
    else:
        found = {}
        for name, entry in content["datasets"].items():
            kind = f"dataset {name!r} of matrix {path}"
            if not isinstance(entry, dict):
                raise InputError(f"{kind} must map names to values, such as 'dataset: hm', not {shown(entry)}.")
            found[str(name)] = Data(**{"dataset": str(name)} | check_options(kind, options_of(Data), entry))
    for name, data in found.items():
        if data.dataset not in list_datasets():
            raise unknown_name("dataset", data.dataset, list_datasets())
        if "/" in name or "\0" in name or name.startswith(".") or len(name.encode()) > LONGEST_NAME:
            raise InputError(f"{path}: dataset {shown(name)} cannot be a part of a folder's name: call it otherwise.")
        check_options(f"dataset {name}", list_datasets()[data.dataset].options, data.options, "option")
    if not found:
        raise InputError(f"{path} names no dataset: add one, such as 'dataset: wardrobe'.")
    return found


def _searches(path: Path, content: Mapping[str, Any], grid: Mapping[str, Any]) -> dict[str, Search]:
    """The searches that a file asks for, by model."""
    found: dict[str, Search] = {}
    for model, axes in grid.items():
        if model not in list_models():
            raise unknown_name("model", model, list_models())
        _check_mapping(path, f"grid of {model}", axes)
        found[model] = Search(read_space(f"the grid of {model} in {path}", axes), trials=None, sampler="grid")
        found[model].check()
    if "search" not in content:
        return found
    kind = f"search of matrix {path}"
    how = check_options(kind, options_of(Search) | {"models": Option(list), "space": Option(dict)}, content["search"])
    spaces, known = how.pop("space", {}), list_models()
    named = how.pop("models", None)
    models = [str(name).partition(":")[0] for name in content.get("models", ["all"])]
    models = list(dict.fromkeys(each for name in models for each in (known if name == "all" else [name])))
    _check_mapping(path, f"space of the {kind}", spaces)
    for model in [*(named or models), *spaces]:
        if model not in known:
            raise unknown_name("model", model, known)
        if named is not None and model not in named:
            raise InputError(f"{path} gives a space to {model}, which is not among the models of its search.")
        if model in found:
            raise InputError(f"{path} has both a grid and a search of {model}: keep one.")
    for model in named or [each for each in models if each in spaces or space_of(each)]:
        own = {"space": spaces[model]} if model in spaces else {}
        _check_mapping(path, f"space of {model}", own.get("space", {}))
        found[model] = read_search(model, how | own, str(path))
    return found


def _check(path: Path, matrix: Matrix) -> None:
    for key in ("models", "seeds", "devices"):
        if not getattr(matrix, key):
            raise InputError(f"{path}: {key} is empty: nothing would be run.")
    for model in [*matrix.parameters, *matrix.ablations]:
        if model not in list_models():
            raise unknown_name("model", model, list_models())
    if matrix.features and matrix.feature_sets:
        raise InputError(f"{path} has both 'features' and 'feature_sets': keep one.")
    if matrix.choose_by is not None:
        check_metric(matrix.choose_by)
    for data in matrix.datasets.values():
        for model, profile in matrix.profiles_of(matrix.controls, data):
            for files in matrix.features_of(model).values():
                Request(model, profile, control=control_of(files), **features_of(matrix, files)).check()
        for model, profile in matrix.profiles_of([*matrix.models, *matrix.controls], data):
            search = matrix.search_of(model, profile)
            if search is not None:
                check_space(model, profile, search.space)
            for changed in [{}, *matrix.ablations.get(model, [])]:
                parameters = matrix.parameters_of(model, profile) | changed
                for files in matrix.features_of(model).values():
                    Request(model, profile, parameters, **features_of(matrix, files)).check()
    for notebook, chosen in matrix.compare.items():
        check_options(f"notebook {notebook}", notebook_options(notebook), chosen)


def features_of(matrix: Matrix, files: Mapping[str, str]) -> dict[str, Any]:
    """What a request says of features: those of a matrix from some files."""
    known = item_feature_options(files)
    options = matrix.feature_options
    if matrix.feature_sets:
        # One list of options serves sets of different kinds: each takes its own.
        everywhere = [item_feature_options(each) for each in matrix.feature_sets.values()]
        options = {
            name: value
            for name, value in options.items()
            if name in known or not any(name in others for others in everywhere)
        }
    return {
        "backbone": matrix.backbone,
        "weights": matrix.weights,
        "feature_options": options,
        "feature_files": dict(files),
    }


def of_pictures(files: Mapping[str, str]) -> bool:
    """Whether a set of features is made of pictures."""
    return not files or PICTURES in files.values()


def control_of(files: Mapping[str, str]) -> str:
    """What the control is called that shuffles features from some files."""
    return SHUFFLED_FEATURES if files else SHUFFLED_PICTURES


def _check_mapping(path: Path, what: str, value: Any) -> None:
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise InputError(f"{path}: {what} must map names to values, not {shown(value)}.")
