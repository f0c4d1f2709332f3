"""The registry: a new model is one file with a `CARD`, and one line here."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from dataclasses import fields, replace
from typing import Any

import torch

from imgrec_lib.data.dataset import TrainingData
from imgrec_lib.errors import InputError, shown, unknown_name
from imgrec_lib.models import (
    bprmf,
    concars,
    deepstyle,
    dvbpr,
    fm,
    fm_visual,
    graphrec,
    imgrec_dir,
    imgrec_ete,
    imgrec_ft,
    item_knn,
    item_knn_visual,
    jrl,
    pop_visrank,
    poprank,
    saers,
    vbpr,
    visrank,
    warp,
)
from imgrec_lib.models.base import ModelCard, Profile, Recommender, TrainSettings

CARDS: tuple[ModelCard, ...] = (
    poprank.CARD,
    item_knn.CARD,
    warp.CARD,
    bprmf.CARD,
    fm.CARD,
    fm_visual.CARD,
    visrank.CARD,
    pop_visrank.CARD,
    item_knn_visual.CARD,
    vbpr.CARD,
    deepstyle.CARD,
    jrl.CARD,
    dvbpr.CARD,
    graphrec.CARD,
    concars.CARD,
    saers.CARD,
    imgrec_dir.CARD,
    imgrec_ft.CARD,
    imgrec_ete.CARD,
)


def list_models() -> dict[str, ModelCard]:
    """All models by name, in the order of the tables."""
    return {card.name: card for card in CARDS}


def model_card(name: str) -> ModelCard:
    """The card of one model.

    Raises:
        InputError: no model has that name.
    """
    models = list_models()
    if name not in models:
        raise unknown_name("model", name, models)
    return models[name]


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
    constructor = {
        key: parameter.default
        for key, parameter in inspect.signature(card.build).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    settings = {f.name: f.default for f in fields(TrainSettings)} if chosen.phases else {}
    by_phase = {f"phase{i + 1}_{key}": (i, key) for i in range(len(chosen.phases)) for key in settings}
    parameters = dict(constructor) | dict(chosen.parameters)
    phases = list(chosen.phases)
    for key, value in overrides.items():
        if key in constructor:
            parameters[key] = _typed(name, key, value, constructor[key])
        elif key in settings:
            phases = [replace(phase, **{key: _typed(name, key, value, settings[key])}) for phase in phases]
        elif key in by_phase:
            index, field_name = by_phase[key]
            phases[index] = replace(phases[index], **{field_name: _typed(name, key, value, settings[field_name])})
        else:
            raise unknown_name(f"parameter of {name}", key, [*constructor, *settings, *by_phase])
    return Profile(parameters, tuple(phases), chosen.note)


def _typed(model: str, key: str, value: Any, default: Any) -> Any:
    """`value` as the type of `default`; whole numbers pass as floats, nothing else is converted."""
    wanted = type(default)
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not wanted:
        raise InputError(
            f"parameter {key!r} of {model} must be {wanted.__name__}, like its default {default!r}, not {shown(value)}."
        )
    return value


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
