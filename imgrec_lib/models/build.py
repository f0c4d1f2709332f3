"""Building a model: its hyper-parameters resolved and checked, and what it needs of the data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch

from imgrec_lib.data.dataset import TrainingData
from imgrec_lib.errors import InputError, unknown_name
from imgrec_lib.models.base import ModelCard, Profile, Recommender, TrainSettings
from imgrec_lib.models.registry import model_card
from imgrec_lib.options import check_options, options_of


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
        "features": (data.features is not None, "give it visual features (extract_features)"),
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
    constructor = options_of(card.build)
    settings = options_of(TrainSettings) if chosen.phases else {}
    by_phase = {f"phase{i + 1}_{key}": (i, key) for i in range(len(chosen.phases)) for key in settings}
    known = {**constructor, **settings, **{key: settings[of] for key, (_, of) in by_phase.items()}}
    parameters = {key: option.default for key, option in constructor.items()} | dict(chosen.parameters)
    phases = list(chosen.phases)
    for key, value in check_options(name, known, overrides).items():
        if key in constructor:
            parameters[key] = value
        elif key in settings:
            phases = [replace(phase, **{key: value}) for phase in phases]
        else:
            index, field_name = by_phase[key]
            phases[index] = replace(phases[index], **{field_name: value})
    return Profile(parameters, tuple(phases), chosen.note)


def build_model(
    name: str, data: TrainingData, *, profile: str = "default", seed: int = 0, **overrides: Any
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
        InputError: unknown name or parameter, or the data lacks what the model needs.
    """
    card = model_card(name)
    resolved = resolve_profile(name, profile, **overrides)
    check_needs(card, data)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = card.build(data, **resolved.parameters)
    model.phases = resolved.phases
    return model
