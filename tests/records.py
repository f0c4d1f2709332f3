"""Finished runs written by hand: records, curves and counts of random scores, as if a model had been trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from imgrec_lib.data.dataset import Dataset, HeldOut, Interactions
from imgrec_lib.evaluation import PROTOCOLS, evaluate
from imgrec_lib.files import fingerprint, write_json
from imgrec_lib.models import model_card
from imgrec_lib.models.base import InnerProduct
from imgrec_lib.runs import Cost, DatasetRecord, Record, Run, Validation, open_run

FEATURES = {"backbone": "efficientnet-lite0", "weights": "imagenet", "weights_sha256": "0" * 16, "random": "no"}


def with_cold_items(dataset: Dataset, share: float = 0.15) -> Dataset:
    """The same dataset with the training interactions of its last items gone."""
    warm = dataset.train.items < dataset.n_items * (1 - share)
    train = Interactions.from_pairs(
        dataset.train.users[warm], dataset.train.items[warm], dataset.n_users, dataset.n_items
    )
    return Dataset(
        dataset.name, dataset.user_ids, dataset.items, train, HeldOut(dataset.validation.items),
        HeldOut(dataset.test.items), split={"kind": "random", "seed": 0, "min_interactions": 5},
    )  # fmt: skip


def record(**fields: Any) -> Record:
    """A record of a run of BPR-MF on one user and one item, but for the given fields."""
    told: dict[str, Any] = {
        "model": "bpr-mf",
        "profile": "default",
        "parameters": {"factors": 4},
        "phases": [],
        "seed": 0,
        "dataset": DatasetRecord("toy", "0" * 16, 1, 1, 1, {}),
        "features": None,
        "identity": "",
        "title": "BPR-MF",
        "family": "",
        "fidelity": "",
        "requested": {"searched": {"factors": 4}},
        "metrics": {protocol: {"auc": 0.5} for protocol in PROTOCOLS},
        "oracle": None,
        "validation": Validation(0.5, 1, 1),
        "cost": Cost(0, 0.0, None, 0.0, 0.0, 0.0, 0, 0),
        "device": "cpu (x86_64)",
        "finished": "2026-01-01T00:00:00+00:00",
    }
    return Record(**told | fields)


def write_run(
    folder: Path,
    data: Dataset,
    model: str = "bpr-mf",
    seed: int = 0,
    *,
    popularity: bool = False,
    epochs: int = 3,
    oracle: bool = False,
    **fields: Any,
) -> Run:
    """A finished run with random factors (or the popularity of items, full of ties) as if a model had been trained.

    Args:
        fields: of the `Record`, other than here.
    """
    configuration = fingerprint(model, seed, fields.get("profile"), fields.get("parameters"))
    rng = np.random.default_rng(int(configuration, 16))
    users = torch.tensor(rng.normal(size=(data.n_users, 4)).astype(np.float32))
    items = torch.tensor(rng.normal(size=(data.n_items, 4)).astype(np.float32))
    counts = torch.tensor(data.train.popularity, dtype=torch.float32).unsqueeze(1)
    scorer = InnerProduct(torch.ones(data.n_users, 1), counts) if popularity else InnerProduct(users, items)
    evaluation = evaluate(scorer, data, seed=seed)
    card = model_card(model)
    validation = rng.uniform(0.4, 0.9, epochs + 1)
    folder.mkdir(parents=True)
    pd.DataFrame(
        {
            "phase": 1,
            "epoch": range(epochs + 1),
            "loss": [None, *rng.uniform(size=epochs)],
            "validation_auc": validation,
            "seconds": [0.0, *rng.uniform(1, 2, epochs)],
        }
    ).iloc[: epochs + 1 if epochs else 0].to_csv(folder / "curve.csv", index=False)
    evaluation.per_user.to_parquet(folder / "per_user.parquet", index=False)
    true_items = torch.tensor(np.random.default_rng(seed).normal(size=(data.n_items, 4)).astype(np.float32))
    truth = evaluate(InnerProduct(users * 0 + 1, true_items), data, seed=seed).metrics if oracle else None
    written = record(
        identity=f"{model}-{seed}",
        model=model,
        phases=[{"learning_rate": 0.1, "epochs": 100}] if epochs else [],
        seed=seed,
        title=card.title,
        family=card.family,
        fidelity=card.fidelity,
        dataset=DatasetRecord.of(data),
        features=FEATURES if "features" in card.needs else None,
        metrics=evaluation.metrics,
        oracle=truth,
        validation=Validation(float(validation.max()), 1, int(validation.argmax())),
        cost=Cost(
            epochs=epochs,
            seconds_training=3.5 * epochs,
            seconds_per_epoch=3.5 + seed if epochs else None,
            seconds_fit=4.0 + seed,
            seconds_evaluation=1.5,
            interactions_per_second=1000.0,
            peak_memory_bytes=2**20 * (100 + seed),
            parameters=400,
        ),
        finished=f"2026-01-01T00:00:0{seed}+00:00",
    )
    write_json(folder / "run.json", replace(written, **fields).to_json())
    return open_run(folder)
