"""Do default penalties hold on sparse and on dense data? The default profile beside a row of strengths, by validation.

    python benchmarks/density.py bpr-mf fm-id

The data are wardrobes of few and of many purchases a user. Each line is a training of seed 0: what the profile's
penalties were multiplied by (the default carries them over to the data's density, see `penalties_at`), AUC and NDCG@10
of the validation items at the best epoch by AUC.
"""

from __future__ import annotations

import math
import sys
import tempfile
from typing import Any

from imgrec_lib import Request, load_dataset
from imgrec_lib.models import resolve_profile
from imgrec_lib.runs.train import train_run

WARDROBES: dict[str, dict[str, Any]] = {
    "thin": {"n_users": 2000, "n_items": 4000, "min_interactions": 3},
    "default": {},
    "dense": {"min_interactions": 60},
}
STRENGTHS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)


def main(models: list[str]) -> None:
    """Train every model on every wardrobe at every strength, and print a line each."""
    for name, options in WARDROBES.items():
        shop = load_dataset("wardrobe", image_size=32, progress=False, **options)
        a_row = len(shop.train) / math.sqrt(shop.n_users * shop.n_items)
        print(f"{name}: {len(shop.train):,} training interactions, {a_row:.2f} a row", flush=True)
        for model in models:
            profile = resolve_profile(model, "default").parameters
            penalties = {key: value for key, value in profile.items() if key.startswith("l2")}
            rows: list[tuple[str, dict[str, Any]]] = [("default", {})]
            for strength in STRENGTHS:
                row = {key: value * strength for key, value in penalties.items()} | {"at_interactions": None}
                rows.append((f"x {strength:g}", row))
            for label, parameters in rows:
                with tempfile.TemporaryDirectory() as folder:
                    found = train_run(shop, Request(model, parameters=parameters), folder, progress=False).record
                best = found.validation
                assert best is not None
                print(f"  {model:10} {label:8} AUC {best.value():.4f}  NDCG@10 {best.value('ndcg@10'):.4f}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or ["bpr-mf", "fm-id"])
