"""Small runs to look into where there are none yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from imgrec_lib.files import default_cache, fingerprint
from imgrec_lib.models import list_models
from imgrec_lib.models.base import ModelCard
from imgrec_lib.request import Request
from imgrec_lib.runs import train_run
from imgrec_lib.source import run_fingerprint

DATASET_OPTIONS = {"n_users": 300, "n_items": 240, "image_size": 64}


def _showcase() -> list[str]:
    """One model of each kind of which the explorer tells something of its own.

    These are the first in the registry, of those that need nothing but pictures: one that sees pictures and splits its
    score, one that sees none, and one that compares pictures with purchases.
    """
    plain = {name: card for name, card in list_models().items() if card.needs <= {"features"}}
    said = ("contributions", "embed_pictures")
    kinds: list[Callable[[ModelCard], bool]] = [
        lambda card: card.family == "visual" and all(hasattr(card.build, name) for name in said),
        lambda card: card.family == "collaborative",
        lambda card: bool(card.needs) and hasattr(card.build, "purchase_similarity"),
    ]
    return [next(name for name, card in plain.items() if kind(card)) for kind in kinds]


def example_runs(
    models: Sequence[str] = (),
    feature_files: Mapping[str, str] | None = None,
    folder: Path | None = None,
    progress: bool = True,
) -> Path:
    """Train a few models on a small wardrobe; what is there already is not trained again.

    Args:
        models: names of the models; none: one of each kind that the explorer tells something of its own about.
        feature_files: sets of features by name, see `item_features`; by default the pictures'.
        folder: where the runs go; by default the cache.
        progress: show progress bars.

    Returns:
        The folder of the runs.
    """
    models = models or _showcase()
    asked: dict[str, Any] = {"dataset_options": DATASET_OPTIONS, "feature_files": dict(feature_files or {})}
    requests = [Request(model, dataset="wardrobe", **asked) for model in models]
    dataset, features = requests[0].load(with_features=True, progress=progress)
    # Other profiles, or other code, make other runs.
    made_by = [[dict(r.resolved.parameters), repr(r.resolved.phases), run_fingerprint(r.model)] for r in requests]
    made_of = fingerprint(dataset.fingerprint, features and features.fingerprint, made_by)
    folder = folder or default_cache() / "explore" / made_of[:8]
    for request in requests:
        train_run(dataset, request, folder / request.model, features=features, progress=progress)
    return folder
