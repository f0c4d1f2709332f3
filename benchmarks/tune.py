"""Random search of hyper-parameters with the same budget for every model; selection by validation AUC alone.

    python benchmarks/tune.py --dataset hm --root PATH --out tuning/hm --components 256
    python benchmarks/tune.py --dataset hm --root PATH --out tuning/hm --models vbpr warp

A model's budget is a number of configurations, the same for all, drawn at random from its space in this file; a space
that is smaller is tried whole. What a space fixes (a list of one) keeps a trial short; epochs are limited for all.

Each trial is one row of `<out>/<model>.csv`, appended when it ends, so that a stopped search goes on; `best.yaml` holds
the winners in the form of a matrix's `parameters`, `tuning.md` the table of all searches. The test items are never
looked at.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from imgrec_lib import InputError, ValidationMetrics, build_model, extract_features, fit, list_models, load_dataset
from imgrec_lib.data import Dataset
from imgrec_lib.data.dataset import HeldOut
from imgrec_lib.files import write_text
from imgrec_lib.report.formats import format_table

TRAINING: dict[str, list[Any]] = {
    "learning_rate": [3e-3, 1e-2],
    "batch_size": [2048, 8192],
    "negatives": [4],
    "positives_by": ["interaction"],
}
FACTORS: dict[str, list[Any]] = {"factors": [32, 64]}
ROW_PENALTY = [1e-3, 1e-2, 3e-2, 1e-1]
POINTWISE: dict[str, list[Any]] = {
    "learning_rate": [3e-3, 1e-2],
    "batch_size": [4096, 16384],
    "negatives": [4, 8],
    "positives_by": ["interaction"],
    "l2": [0.0, 1e-7, 1e-6],
    "l2_users": [0.0, 2e-6, 1e-5],
}
PAIRWISE_KERNEL_PENALTY = [1e-5, 1e-4, 1e-3, 1e-2]

REDUCED = ("fm-visual", "vbpr", "deepstyle")
"""Models whose loss is a function of the features' projection, on whose principal components they can be searched.

They divide the features by their largest value; on components they are given that of the features. ImgRec-Dir is not
among them, though its loss is such a function too: Adam's steps depend on the axes, and with them its best settings.
"""

VALIDATION_USERS = {"concars": 600, "saers": 2000}
"""Models that are validated on so many users, the same for all trials, because scoring a pair costs much."""

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
        "learning_rate": [1e-3, 3e-3, 1e-2],
        "batch_size": [4096, 8192],
        "negatives": [5, 20],
        "positives_by": ["interaction"],
        "image_weight": [1e-3, 1e-2, 1e-1],
        "score_with_bias": [True],
        "l2": [0.0, 1e-3, 1e-2],
        "epochs": [20],
    },
    "graphrec": FACTORS
    | {
        "learning_rate": [3e-4, 1e-3, 3e-3],
        "batch_size": [512, 1024, 4096],
        "negatives": [1, 4],
        "positives_by": ["user", "interaction"],
        "mask_own_edge": [True, False],
        "l2_users": [0.0, 1e-4, 1e-3],
        "l2_items": [0.0, 1e-4, 1e-3],
    },
    "concars": {
        "factors": [4],
        "channels": [4, 8, 16],
        "slots": ["weekday"],
        "learning_rate": [1e-3, 3e-3, 1e-2],
        "batch_size": [256, 512, 2048],
        "negatives": [1, 4],
        "positives_by": ["user", "interaction"],
        "l2": [0.0, 1e-3, 1e-2],
        "epochs": [8],
        "evaluate_every": [2],
    },
    "saers": FACTORS
    | {
        "components": [256],
        "initial_scale": [0.1],
        "learning_rate": [3e-3, 1e-2],
        "batch_size": [2048, 8192],
        "negatives": [4],
        "positives_by": ["interaction"],
        "l2": ROW_PENALTY[1:],
        "l2_items": ROW_PENALTY[1:],
        "l2_bias": [1e-3, 1e-2],
        "l2_visual": [0.0, 1e-4, 1e-3, 1e-2],
        "epochs": [20],
        "evaluate_every": [5],
    },
    "dvbpr": {
        "size": [48],
        "factors": [32, 64],
        "learning_rate": [3e-4, 1e-3, 3e-3],
        "batch_size": [64, 256],
        "positives_by": ["user", "interaction"],
        "l2_network": [0.0, 3e-5, 3e-4],
        "l2_users": [1e-2, 1e-1, 1.0],
        "dropout": [0.0, 0.5],
        "epochs": [8],
        "evaluate_every": [4],
    },
    "imgrec-dir": FACTORS | POINTWISE,
    "imgrec-ft": FACTORS | POINTWISE | {"l2_layer": [0.0, 1e-6, 1e-5, 1e-4]},
}


TEXT = """# The search of hyper-parameters on {dataset}

Written by `benchmarks/tune.py`, which holds the spaces; do not edit. The budget is the same for every model:
{trials} configurations, drawn at random from its space (all of a smaller one), each with seed 0 and at most {epochs}
epochs, ended by {patience} validations without progress. What a space fixes, to keep a trial short, is part of each
configuration. The number is the mean exact AUC of the validation items; the test items were not looked at.

{reduced} were searched on {components} of the features.
Validated on all users, but {users}.

"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="wardrobe")
    parser.add_argument("--root")
    parser.add_argument("--models", nargs="*", default=list(SPACES), choices=list(SPACES))
    parser.add_argument("--trials", type=int, default=10, help="configurations of each model")
    parser.add_argument("--epochs", type=int, default=50, help="at most so many epochs of a trial")
    parser.add_argument("--patience", type=int, default=4, help="validations without progress that end a trial")
    parser.add_argument(
        "--components",
        type=int,
        default=0,
        help=f"search {', '.join(REDUCED)} on so many principal components of the features, a faster stand-in",
    )
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    dataset = load_dataset(arguments.dataset, arguments.root)
    values = None if dataset.images is None else extract_features(dataset.images).values
    data, reduced, scale = dataset.training_data(values, in_order=True), None, 1.0
    if values is not None and arguments.components:
        # A rotation keeps inner products and so what penalties mean; Adam's steps it does not: see `REDUCED`.
        axes = np.linalg.eigh(values.T @ values)[1][:, : -arguments.components - 1 : -1]
        reduced, scale = dataset.training_data(values @ axes, in_order=True), float(np.abs(values).max())
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in arguments.models:
        path = arguments.out / f"{name}.csv"
        validate = validation(dataset, VALIDATION_USERS.get(name, dataset.n_users))
        done = pd.read_csv(path) if path.exists() else pd.DataFrame({"parameters": []})
        for configuration in configurations(name, arguments.trials):
            text = json.dumps(configuration, sort_keys=True)
            if text in set(done["parameters"]):
                continue
            here, trial = data, configuration
            if list_models()[name].profiles["default"].phases:
                trial = {"epochs": arguments.epochs, "patience": arguments.patience} | configuration
            if reduced is not None and name in REDUCED:
                here, trial = reduced, trial | {"feature_scale": scale}
            started = time.process_time()
            try:
                model = build_model(name, here, **trial)
                result = fit(model, here, validate, progress=False)
                auc, epoch = result.best_auc, result.best_epoch
            except InputError as error:  # a loss that is not finite is a result, too
                print(error, flush=True)
                auc, epoch = float("nan"), -1
            seconds = round(time.process_time() - started, 1)
            row = {"validation_auc": auc, "best_epoch": epoch, "cpu_seconds": seconds, "parameters": text}
            done = pd.concat([done, pd.DataFrame([row])], ignore_index=True)
            write_text(path, done.to_csv(index=False))
            print(f"{name} {auc:.4f} epoch {epoch} {seconds} s {text}", flush=True)
    write_results(arguments.out, dataset, arguments)


def validation(dataset: Dataset, users: int) -> ValidationMetrics:
    """Validation of so many users, the same at every call."""
    items = dataset.validation.items
    items[np.random.default_rng(0).permutation(dataset.n_users)[users:]] = -1
    return ValidationMetrics(replace(dataset, validation=HeldOut(items, dataset.validation.times)))


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


def write_results(out: Path, dataset: Dataset, arguments: argparse.Namespace) -> None:
    """Write `best.yaml` and `tuning.md` from the searches in a folder."""
    best, rows = {}, []
    for path in sorted(out.glob("*.csv")):
        table, card = pd.read_csv(path), list_models()[path.stem]
        aucs = table["validation_auc"]
        winner = table.iloc[aucs.argmax()]
        best[path.stem] = json.loads(winner["parameters"])
        rows.append(
            {
                "model": card.title,
                "configurations": str(len(table)),
                "of": f"{math.prod(len(values) for values in SPACES[path.stem].values()):,}",
                "best": f"{aucs.max():.4f}",
                "median": f"{aucs.median():.4f}",
                "lowest": f"{aucs.min():.4f}",
                "best epoch": str(int(winner["best_epoch"])),
                "CPU minutes": f"{table['cpu_seconds'].sum() / 60:.0f}",
                "best configuration": ", ".join(f"{key} {value}" for key, value in sorted(best[path.stem].items())),
            }
        )
    write_text(out / "best.yaml", yaml.safe_dump({"parameters": best}, sort_keys=True))
    text = TEXT.format(
        dataset=dataset.name, trials=arguments.trials, epochs=arguments.epochs, patience=arguments.patience,
        components=f"{arguments.components} principal components" if arguments.components else "all",
        reduced=", ".join(list_models()[name].title for name in REDUCED),
        users=", ".join(f"{list_models()[name].title} on {n:,}" for name, n in VALIDATION_USERS.items()),
    )  # fmt: skip
    write_text(out / "tuning.md", text + format_table(pd.DataFrame(rows).set_index("model"), "markdown") + "\n")


if __name__ == "__main__":
    main()
