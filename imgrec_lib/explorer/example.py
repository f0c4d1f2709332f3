"""Small runs to look into where there are none yet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from imgrec_lib.files import default_cache, fingerprint
from imgrec_lib.request import Request
from imgrec_lib.runs import train_run
from imgrec_lib.source import run_fingerprint

DATASET_OPTIONS = {"n_users": 300, "n_items": 240, "image_size": 64}


def example_runs(models: Sequence[str], folder: Path | None = None, progress: bool = True) -> Path:
    """Train a few models on a small wardrobe; what is there already is not trained again.

    Args:
        models: names of the models.
        folder: where the runs go; by default the cache.
        progress: show progress bars.

    Returns:
        The folder of the runs.
    """
    requests = [Request(model, dataset="wardrobe", dataset_options=DATASET_OPTIONS) for model in models]
    dataset, features = requests[0].load(with_features=True, progress=progress)
    # Other profiles, or other code, make other runs.
    made_by = [[dict(r.resolved.parameters), repr(r.resolved.phases), run_fingerprint(r.model)] for r in requests]
    made_of = fingerprint(dataset.fingerprint, made_by)
    folder = folder or default_cache() / "explore" / made_of[:8]
    for request in requests:
        train_run(dataset, request, folder / request.model, features=features, progress=progress)
    return folder
