"""What a run is asked for, said once: the data, the features of its pictures, the model, and where to train it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from imgrec_lib.data import check_dataset_options, list_datasets, load_dataset
from imgrec_lib.data.dataset import Dataset
from imgrec_lib.data.storing import pictures_when_needed
from imgrec_lib.devices import check_device
from imgrec_lib.errors import InputError
from imgrec_lib.features import Features, item_feature_options, item_features
from imgrec_lib.features.backbones import check_backbone
from imgrec_lib.features.controls import SHUFFLED_PICTURES, check_control, with_control
from imgrec_lib.features.preparation import Learnt
from imgrec_lib.features.sets import OF_TABLE, PICTURES
from imgrec_lib.models import check_needs, list_models, model_card, network_parameters, resolve_profile
from imgrec_lib.models.base import Profile
from imgrec_lib.options import CountOrNone, Option, admits, check_options, checked, options_of

Moved = str | Path | Mapping[str, str | Path] | None
"""Where data lie now that were moved: see `Request.at`."""

COMPUTED = (PICTURES, *OF_TABLE)
"""What may stand in place of a file of features."""


@checked
@dataclass(frozen=True)
class Request:
    """What a run is asked for.

    Attributes:
        model: a name of `list_models()`.
        profile, parameters: see `resolve_profile`.
        seed: seeds initial weights, batches and the sampled negatives of the test.
        device: "cpu", "cuda", "cuda:1", ...
        dataset: a name of `list_datasets()`; None where the caller brings a dataset of their own, which nobody can
            load again from the request.
        root: file or folder of the dataset; None for a reader that needs none.
        dataset_options: options of the reader.
        backbone, weights, feature_options: see `item_features`; a model that looks at pictures itself follows them,
            where `parameters` do not say otherwise (`network_parameters`).
        feature_files: files of vectors, or "pictures", "text", "categories" or "numbers", by the name of each set: see
            `item_features`. Empty: features of the pictures alone.
        control: see `with_control`; None for none.
        varied: those of `parameters` that a search varies; empty for a trial.
        searched: those of `parameters` that a search chose; empty where there was none.
        warm_start: folder of a finished run of the same model, whose weights training starts from; None for initial
            weights.

    Example:
        >>> from imgrec_lib import Request
        >>> request = Request("bpr-mf", parameters={"factors": 8}, dataset="wardrobe")
        >>> Request.from_json(request.to_json()) == request
        True
    """

    model: str
    profile: str = "default"
    parameters: dict[str, Any] = field(default_factory=dict)
    seed: CountOrNone = 0
    device: str = "cpu"
    dataset: str | None = None
    root: str | None = None
    dataset_options: dict[str, Any] = field(default_factory=dict)
    backbone: str = "efficientnet-lite0"
    weights: str = "default"
    feature_options: dict[str, Any] = field(default_factory=dict)
    feature_files: dict[str, str] = field(default_factory=dict)
    control: str | None = None
    varied: dict[str, Any] = field(default_factory=dict)
    searched: dict[str, Any] = field(default_factory=dict)
    warm_start: str | None = None

    def __post_init__(self) -> None:
        check_options("a request", options_of(Request), vars(self))

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Request:
        """The request of `to_json`.

        Raises:
            InputError: an unknown name (with a suggestion), a value of the wrong type, or no model.
        """
        checked = check_options("a request", options_of(cls), values)
        if "model" not in checked:
            raise InputError(f"a request must name a model: add 'model', such as {next(iter(list_models()))!r}.")
        return cls(**checked)

    @classmethod
    def from_parameters(cls, values: Mapping[str, Any], **others: Any) -> Request:
        """The request among the parameters of a notebook, which may have further ones.

        Args:
            values: parameters by name; an empty text stands for None, as notebooks write it.
            others: what the notebook has no parameter for, such as `model`.

        Raises:
            InputError: see `from_json`.
        """
        known = {f.name: f for f in fields(cls)}
        given = {name: value for name, value in values.items() if name in known}
        absent = {name for name in given if given[name] == "" and known[name].default is None}
        return cls.from_json(given | dict.fromkeys(absent) | others)

    def to_json(self) -> dict[str, Any]:
        """Every attribute by name, ready for JSON; paths are absolute, so that it holds in every folder."""
        values = dict(vars(self))
        if self.root is not None:
            values["root"] = _absolute(self.root)
        if self.dataset is not None:
            reader = list_datasets().get(self.dataset)
            values["dataset_options"] = _with_absolute_paths(self.dataset_options, reader.options if reader else {})
        values["feature_options"] = _with_absolute_paths(self.feature_options, item_feature_options(self.feature_files))
        values["feature_files"] = {
            name: path if path in COMPUTED else _absolute(path) for name, path in self.feature_files.items()
        }
        if self.warm_start is not None:
            values["warm_start"] = _absolute(self.warm_start)
        if self.weights not in ("default", "random") and Path(self.weights).expanduser().exists():
            values["weights"] = _absolute(self.weights)
        return values

    def to_parameters(self) -> dict[str, Any]:
        """`to_json` as the parameters of a notebook, where an empty text stands for None."""
        return {name: "" if value is None else value for name, value in self.to_json().items()}

    @property
    def overrides(self) -> dict[str, Any]:
        """What replaces values of the profile: `parameters`, and what is asked of the network that looks at pictures.

        Raises:
            InputError: see `network_parameters`.
        """
        network = network_parameters(self.model, self.backbone, self.weights, self.feature_options)
        return network | self.parameters

    @property
    def resolved(self) -> Profile:
        """The model's complete profile.

        Raises:
            InputError: see `overrides` and `resolve_profile`.
        """
        return resolve_profile(self.model, self.profile, **self.overrides)

    def check(self) -> None:
        """Refuse, before any data is read, whatever can be refused without it.

        Raises:
            InputError: an unknown dataset, option, backbone, model, profile or parameter, a value of the wrong type or
                out of its bounds, or a device that is not there.
        """
        _ = self.resolved
        if self.dataset is not None:
            check_dataset_options(self.dataset, self.root, self.dataset_options)
        check_backbone(self.backbone)
        check_options("features", item_feature_options(self.feature_files), self.feature_options, "option")
        for path in self.feature_files.values():
            if path not in COMPUTED and not Path(path).expanduser().is_file():
                raise InputError(
                    f"there is no file of features {path}: check the path, or say one of {', '.join(COMPUTED)}."
                )
        check_control(self.control)
        card = model_card(self.model)
        if self.control is not None and "features" not in card.uses:
            raise InputError(
                f"{card.title} uses no features, which the control {self.control!r} changes: leave it out."
            )
        if (
            self.control == SHUFFLED_PICTURES
            and self.feature_files
            and OF_TABLE.keys() >= set(self.feature_files.values())
        ):
            raise InputError("these features are not of pictures: call the control 'shuffled features'.")
        check_device(self.device)

    def load(self, *, with_features: bool | None = None, progress: bool = True) -> tuple[Dataset, Features | None]:
        """Load the dataset and, where it has pictures and they are wanted, their features.

        Args:
            with_features: whether features are wanted; by default where the model uses them.
            progress: show progress bars.

        Returns:
            The dataset, and the features under the control; None without.

        Raises:
            InputError: see `check`; the request names no dataset; the data cannot be read, or lacks what the model
                needs.
        """
        self.check()
        dataset = self.load_dataset(progress=progress)
        card = model_card(self.model)
        wanted = "features" in card.uses if with_features is None else with_features
        coming = {"features"} if self.has_features(dataset) else set()
        check_needs(card, dataset.training_data(), coming)
        if not wanted or not coming:
            return dataset, None
        return dataset, with_control(self.load_features(dataset, progress=progress), self.control)

    def load_dataset(self, *, progress: bool = True) -> Dataset:
        """Load the dataset alone, whatever the model; pictures that lie in files are prepared when first looked at.

        Raises:
            InputError: the request names no dataset, or its data cannot be read.
        """
        if self.dataset is None:
            raise InputError("this request does not say how its dataset is loaded: load it yourself.")
        check_dataset_options(self.dataset, self.root, self.dataset_options)
        options = dict(self.dataset_options)
        if "progress" in list_datasets()[self.dataset].options:
            options.setdefault("progress", progress)
        with pictures_when_needed():
            return load_dataset(self.dataset, self.root, **options)

    def has_features(self, dataset: Dataset) -> bool:
        """Whether there are features to load: of pictures, or in files."""
        return dataset.images is not None or bool(self.feature_files)

    def load_features(self, dataset: Dataset, *, progress: bool = True, learnt: Learnt | None = None) -> Features:
        """The features that the request asks for, see `item_features`, whatever the control.

        Args:
            dataset: what `load_dataset` loaded.
            progress: show progress bars.
            learnt: what a run keeps of their preparation, see `read_features`.

        Raises:
            InputError: there are no pictures, or features cannot be made or read.
        """
        return item_features(
            dataset,
            self.feature_files,
            backbone=self.backbone,
            weights=self.weights,
            device=self.device,
            progress=progress,
            learnt=learnt,
            **self.feature_options,
        )

    @property
    def data_names(self) -> tuple[str, ...]:
        """By what names `at` knows the dataset."""
        return tuple(name for name in (Path(self.root or "").name, self.dataset) if name)

    def at(self, root: Moved) -> Request:
        """The same request for data that lie elsewhere.

        Files and folders that lay below the old root (among the options, files of features, weights) are taken to have
        moved with it; a file of features that is no longer where it was is looked for in the new root, by its name.

        Args:
            root: where the data lie now; or that by the name of each dataset, which is the last part of its old root or
                the name of its reader, and "" for all others. None, and a dataset that is not named, leave the request
                as it is.
        """
        if isinstance(root, Mapping):
            root = next((root[name] for name in (*self.data_names, "") if name in root), None)
        if root is None:
            return self
        reader = list_datasets().get(self.dataset or "")
        paths = {name for name, option in (reader.options if reader else {}).items() if admits(option.type, Path)}
        options = {
            name: _moved(value, self.root, root) if name in paths and value else value
            for name, value in self.dataset_options.items()
        }
        files = {
            name: path if path in COMPUTED else _found(_moved(path, self.root, root), root)
            for name, path in self.feature_files.items()
        }
        weights = _moved(self.weights, self.root, root)
        return replace(self, root=str(root), dataset_options=options, feature_files=files, weights=weights)


def _absolute(path: str | Path) -> str:
    return str(Path(os.path.expanduser(path)).absolute())


def _moved(path: str, old: str | None, new: str | Path) -> str:
    """A path below the old root, below the new one; any other as it is."""
    inside = old is not None and Path(path).is_relative_to(old)
    return str(Path(new) / Path(path).relative_to(old)) if inside and old is not None else path


def _found(path: str, root: str | Path) -> str:
    """A file, or where it is not there the one of its name in a folder, if there is one."""
    beside = Path(root) / Path(path).name
    return str(beside) if beside.is_file() and not Path(path).is_file() else path


def _with_absolute_paths(options: Mapping[str, Any], known: Mapping[str, Option]) -> dict[str, Any]:
    """Options of which those that are files or folders are absolute paths."""
    paths = {name for name, option in known.items() if admits(option.type, Path)}
    return {name: _absolute(value) if name in paths and value else value for name, value in options.items()}
