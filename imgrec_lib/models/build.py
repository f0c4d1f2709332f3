"""Building a model: its hyper-parameters resolved and checked, and what it needs of the data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch

from imgrec_lib.data.dataset import TrainingData
from imgrec_lib.errors import InputError, unknown_name
from imgrec_lib.models.base import ModelCard, Profile, Recommender, TrainSettings
from imgrec_lib.models.registry import model_card
from imgrec_lib.options import CountOrNone, Option, check_options, options_of

NETWORK_OPTIONS = ("pooling", "size", "stride", "preprocessing", "crop", "seed")
"""Options of `extract_features` that say what the network is (`build_backbone`)."""


def check_needs(card: ModelCard, data: TrainingData, coming: Iterable[str] = ()) -> None:
    """Refuse, in one sentence, a dataset that lacks what the model needs.

    Args:
        card: the model.
        data: the training data.
        coming: what will still be added ("features", while only the pictures are there).

    Raises:
        InputError: naming the model, what is missing, and the remedy.
    """
    remedies = {
        "features": (
            data.features is not None,
            "give it pictures, or vectors of your own (--features; in Python, read_features)",
        ),
        "categories": (data.categories is not None, "add a 'category' column to the item table"),
        "groups": (
            data.groups is not None,
            "add a 'group' column to the item table, which variants of a product share",
        ),
        "timestamps": (data.interactions.times is not None, "add a 'timestamp' column to the interactions"),
        "images": (data.images is not None, "load the dataset with its images"),
        "attributes": (
            data.attributes is not None and bool(len(data.attributes.columns)),
            "add attribute columns to the item table",
        ),
    }
    for need in sorted(card.needs.difference(coming)):
        present, remedy = remedies[need]
        if not present:
            raise InputError(f"{card.title} needs {need}, which this dataset lacks: {remedy}.")


def resolve_profile(name: str, profile: str = "default", **overrides: Any) -> Profile:
    """A model's profile with single hyper-parameters replaced.

    Args:
        name: the model.
        profile: "default", "paper" or "code", where the model has it.
        overrides: constructor arguments of the model, or fields of `TrainSettings` (of every phase; one phase's
            are written `phase1_learning_rate`, `phase2_learning_rate`, ...).

    Returns:
        The complete profile.

    Raises:
        InputError: unknown model, profile or parameter (with a suggestion), or a value of the wrong type.
    """
    card = model_card(name)
    if profile not in card.profiles:
        raise unknown_name(f"profile of {name}", profile, card.profiles)
    chosen = card.profiles[profile]
    constructor, settings = options_of(card.build), options_of(TrainSettings)
    by_phase = _phase_settings(chosen)
    parameters = {key: option.default for key, option in constructor.items()} | dict(chosen.parameters)
    phases = list(chosen.phases)
    for key, value in check_options(name, parameter_options(name, profile), overrides).items():
        if key in constructor:
            parameters[key] = value
        elif key in settings:
            phases = [replace(phase, **{key: value}) for phase in phases]
        else:
            index, field_name = by_phase[key]
            phases[index] = replace(phases[index], **{field_name: value})
    return Profile(parameters, tuple(phases), chosen.note)


def parameter_options(name: str, profile: str = "default") -> dict[str, Option]:
    """All that may replace a value of a model's profile, by name: see the overrides of `resolve_profile`.

    Raises:
        InputError: unknown model or profile (with a suggestion).
    """
    card = model_card(name)
    if profile not in card.profiles:
        raise unknown_name(f"profile of {name}", profile, card.profiles)
    chosen = card.profiles[profile]
    settings = options_of(TrainSettings) if chosen.phases else {}
    by_phase = {key: settings[of] for key, (_, of) in _phase_settings(chosen).items()}
    return {**options_of(card.build), **settings, **by_phase}


def _phase_settings(profile: Profile) -> dict[str, tuple[int, str]]:
    """The number of the phase, from 0, and the setting that each of `phase1_learning_rate`, ... stands for."""
    return {f"phase{i + 1}_{key}": (i, key) for i in range(len(profile.phases)) for key in options_of(TrainSettings)}


def network_parameters(name: str, backbone: str, weights: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """What is asked of the network that looks at pictures, for a model that looks at them by such a network itself.

    ImgRec-EtE and SAERS do: one option then reaches the features and the models alike, or is refused.

    Args:
        name: the model.
        backbone, weights: see `build_backbone`.
        options: of `extract_features`, those that are given.

    Returns:
        Parameters of the model; none for a model without a hyper-parameter `backbone`.

    Raises:
        InputError: an option of the network that the model cannot follow.
    """
    card = model_card(name)
    known = options_of(card.build)
    if "backbone" not in known:
        return {}
    given = {key: value for key, value in options.items() if key in NETWORK_OPTIONS and value is not None}
    for key in given:
        if key not in known:
            raise InputError(
                f"{card.title} looks at the pictures itself and cannot follow the feature option {key!r}: leave the "
                "option out, or the model."
            )
    return {"backbone": backbone, "weights": weights, **given}


def _check_pictures(card: ModelCard, profile: str, data: TrainingData, overrides: Mapping[str, Any]) -> None:
    """Refuse pictures that are smaller than a profile wants them for a network trained on sharp ones."""
    size = card.profiles[profile].parameters.get("size", 0)
    if "size" in overrides or "backbone" not in options_of(card.build) or data.images is None:
        return
    if data.images.size < size:
        raise InputError(
            f"profile {profile!r} of {card.title} looks at pictures of {size} pixels, and these are stored with "
            f"{data.images.size}: load the dataset with image_size={size}, or give a size."
        )


def build_model(
    name: str, data: TrainingData, *, profile: str = "default", seed: CountOrNone = 0, **overrides: Any
) -> Recommender:
    """Build an untrained model.

    Args:
        name: one of `list_models()`.
        data: the training data, with features where the model needs them.
        profile: named set of hyper-parameters.
        seed: seeds the initial weights; PyTorch's global random stream is left as it was.
        overrides: see `resolve_profile`.

    Returns:
        The model, on the CPU, with the trainer's settings in `phases`.

    Raises:
        InputError: unknown name or parameter, the data lacks what the model needs, or its pictures are stored smaller
            than the profile wants them.

    Example:
        >>> from imgrec_lib import build_model, load_dataset
        >>> dataset = load_dataset("wardrobe", n_users=40, n_items=50, image_size=32, progress=False)
        >>> model = build_model("bpr-mf", dataset.training_data(), factors=8)
        >>> model.users.shape
        torch.Size([40, 8])
    """
    card = model_card(name)
    resolved = resolve_profile(name, profile, **overrides)
    check_needs(card, data)
    _check_pictures(card, profile, data, overrides)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = card.build(data, **resolved.parameters)
    model.phases = resolved.phases
    return model
