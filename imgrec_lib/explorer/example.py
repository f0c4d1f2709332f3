"""Small runs to look into where there are none yet."""

from __future__ import annotations

from pathlib import Path

from imgrec_lib.files import default_cache, fingerprint
from imgrec_lib.models import model_card, resolve_profile
from imgrec_lib.runs import requested_inputs, train_run
from imgrec_lib.source import run_fingerprint

EXAMPLES = ("imgrec-ft", "bpr-mf", "visrank")
REQUESTED = {
    "dataset": "wardrobe",
    "root": "",
    "dataset_options": {"n_users": 300, "n_items": 240, "image_size": 64},
    "backbone": "efficientnet-lite0",
    "weights": "default",
    "feature_options": {},
    "control": "",
}


def example_runs(folder: Path | None = None, progress: bool = True) -> Path:
    """Train a few models on a small wardrobe; what is there already is not trained again.

    Args:
        folder: where the runs go; by default the cache.
        progress: show progress bars.

    Returns:
        The folder of the runs.
    """
    dataset, features = requested_inputs(REQUESTED, with_features=True, progress=progress)
    # Other profiles, or other code, make other runs.
    profiles = [resolve_profile(model) for model in EXAMPLES]
    made_by = [
        [dict(p.parameters), repr(p.phases), run_fingerprint(m)] for m, p in zip(EXAMPLES, profiles, strict=True)
    ]
    made_of = fingerprint(dataset.fingerprint, made_by)
    folder = folder or default_cache() / "explore" / made_of[:8]
    for model in EXAMPLES:
        used = features if "features" in model_card(model).uses else None
        train_run(dataset, model, folder / model, features=used, requested=REQUESTED, progress=progress)
    return folder
