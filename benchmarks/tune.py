"""Random search of hyper-parameters with the same budget for every model; selection by validation AUC alone.

    python benchmarks/tune.py --dataset hm --root PATH --out tuning/hm --trials 10
    python benchmarks/tune.py --dataset hm --root PATH --out tuning/hm --models vbpr warp

Each trial is one row of `<out>/<model>.csv`, appended when it ends, so that a stopped search goes on; `best.yaml` holds
the winners in the form of a matrix's `parameters`. The test items are never looked at.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from imgrec_lib import InputError, ValidationAUC, build_model, extract_features, fit, list_models, load_dataset
from imgrec_lib.files import write_text

TRAINING: dict[str, list[Any]] = {
    "learning_rate": [3e-3, 1e-2],
    "batch_size": [2048, 8192],
    "negatives": [4],
    "positives_by": ["interaction"],
}
FACTORS: dict[str, list[Any]] = {"factors": [32, 64]}
ROW_PENALTY = [1e-3, 1e-2, 3e-2, 1e-1]
KERNEL_PENALTY = [0.0, 1e-7, 1e-6, 1e-5]
PAIRWISE_KERNEL_PENALTY = [1e-5, 1e-4, 1e-3, 1e-2]

LINEAR = ("fm-visual", "vbpr", "deepstyle")
"""Models whose loss is a function of the features' projection; their divisor of the features can be given."""

SPACES: dict[str, dict[str, list[Any]]] = {
    "visrank": {"similarity": ["cosine", "euclidean"], "aggregate": ["mean", "max"]},
    "pop-visrank": {"weight": [1.0, 2.0, 4.0, 7.0, 10.0, 14.0, 20.0, 30.0], "aggregate": ["mean", "max"]},
    "warp": FACTORS
    | {
        "learning_rate": [1e-2, 3e-2, 1e-1],
        "batch_size": [256, 1024, 4096],
        "positives_by": ["user", "interaction"],
        "l2": ROW_PENALTY,
        "l2_bias": [0.0, 1e-3, 1e-2],
        "max_trials": [10, 50],
    },
    "bpr-mf": FACTORS | TRAINING | {"l2": ROW_PENALTY, "l2_negative": ROW_PENALTY, "l2_bias": [0.0, 1e-3, 1e-2]},
    "fm-id": FACTORS | TRAINING | {"l2": ROW_PENALTY, "l2_linear": [0.0, 1e-3, 1e-2]},
    # About what suits BPR-MF, of which these are extensions.
    "fm-visual": FACTORS
    | TRAINING
    | {"l2": [3e-2, 1e-1], "l2_linear": [1e-3, 1e-2], "l2_visual": [1e-6, *PAIRWISE_KERNEL_PENALTY]},
    "vbpr": TRAINING
    | {
        "factors": [64],
        "visual_factors": [16, 64],
        "l2": [3e-2, 1e-1],
        "l2_negative": [1e-1],
        "l2_bias": [1e-3, 1e-2],
        "l2_visual": PAIRWISE_KERNEL_PENALTY,
    },
    "deepstyle": FACTORS
    | TRAINING
    | {"l2": [1e-3, 1e-2, 3e-2], "l2_category": [1e-2, 1e-1], "l2_visual": [1e-6, *PAIRWISE_KERNEL_PENALTY]},
    "jrl": FACTORS
    | {
        "learning_rate": [3e-3, 1e-2],
        "batch_size": [4096, 8192],
        "negatives": [5],
        "positives_by": ["interaction"],
        "image_weight": [1e-3, 1e-2, 1e-1],
        "score_with_bias": [True, False],
        "l2": [0.0, 1e-2, 1e-1],
    },
    "graphrec": FACTORS
    | TRAINING
    | {"mask_own_edge": [True, False], "l2_users": [0.0, 1e-3, 1e-2], "l2_items": [0.0, 1e-3, 1e-2]},
    "concars": {
        "factors": [8],
        "channels": [8],
        "slots": ["weekday"],
        "learning_rate": [1e-3, 3e-3],
        "batch_size": [256, 512],
        "negatives": [1, 4],
        "positives_by": ["user", "interaction"],
        "l2": [0.0, 1e-3, 1e-2],
    },
    "imgrec-dir": FACTORS | TRAINING | {"l2": KERNEL_PENALTY},
    "imgrec-ft": FACTORS | TRAINING | {"l2": KERNEL_PENALTY, "l2_layer": KERNEL_PENALTY},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="wardrobe")
    parser.add_argument("--root")
    parser.add_argument("--models", nargs="*", default=list(SPACES), choices=list(SPACES))
    parser.add_argument("--trials", type=int, default=10, help="configurations of each model")
    parser.add_argument("--epochs", type=int, default=150, help="at most so many epochs of a trial")
    parser.add_argument("--patience", type=int, default=6, help="validations without progress that end a trial")
    parser.add_argument(
        "--seconds", type=float, default=float("inf"), help="start no further trial of a model after so long"
    )
    parser.add_argument(
        "--components",
        type=int,
        default=0,
        help="search the linear pairwise models on so many principal components of the features, a faster stand-in",
    )
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    dataset = load_dataset(arguments.dataset, arguments.root)
    values = None if dataset.images is None else extract_features(dataset.images).values
    data, reduced, scale = dataset.training_data(values), None, 1.0
    if values is not None and arguments.components:
        # A rotation keeps inner products and lengths, so that rates and penalties mean what they mean on all features.
        axes = np.linalg.eigh(values.T @ values)[1][:, : -arguments.components - 1 : -1]
        reduced, scale = dataset.training_data(values @ axes), float(np.abs(values).max())
    validate = ValidationAUC(dataset)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in arguments.models:
        began, path = time.monotonic(), arguments.out / f"{name}.csv"
        done = pd.read_csv(path) if path.exists() else pd.DataFrame({"parameters": []})
        for configuration in configurations(name, arguments.trials):
            text = json.dumps(configuration, sort_keys=True)
            if text in set(done["parameters"]):
                continue
            if time.monotonic() - began > arguments.seconds:
                break
            trial = configuration
            if list_models()[name].profiles["default"].phases:
                trial = configuration | {"epochs": arguments.epochs, "patience": arguments.patience}
            here = data
            if reduced is not None and name in LINEAR:
                here, trial = reduced, trial | {"feature_scale": scale}
            started = time.perf_counter()
            try:
                model = build_model(name, here, **trial)
                result = fit(model, here, validate, progress=False)
                auc, epoch = result.best_auc, result.best_epoch
            except InputError as error:  # a loss that is not finite is a result, too
                print(error, flush=True)
                auc, epoch = float("nan"), -1
            seconds = round(time.perf_counter() - started, 1)
            row = {"validation_auc": auc, "best_epoch": epoch, "seconds": seconds, "parameters": text}
            done = pd.concat([done, pd.DataFrame([row])], ignore_index=True)
            write_text(path, done.to_csv(index=False))
            print(f"{name} {auc:.4f} epoch {epoch} {seconds} s {text}", flush=True)
    best = {}
    for path in sorted(arguments.out.glob("*.csv")):
        table = pd.read_csv(path).dropna()
        best[path.stem] = json.loads(table.loc[table["validation_auc"].idxmax(), "parameters"])
    write_text(arguments.out / "best.yaml", yaml.safe_dump({"parameters": best}, sort_keys=True))


def configurations(name: str, trials: int) -> list[dict[str, Any]]:
    """Distinct random configurations of a model's space, the same at every call; all of a space that is smaller."""
    rng, space = random.Random(name), SPACES[name]
    found: dict[str, dict[str, Any]] = {}
    for _ in range(100 * trials):
        configuration = {key: rng.choice(values) for key, values in space.items()}
        found.setdefault(json.dumps(configuration, sort_keys=True), configuration)
        if len(found) == trials:
            break
    return list(found.values())


if __name__ == "__main__":
    main()
