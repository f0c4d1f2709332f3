"""All scores of one peer's model, in the peers' own environment, for benchmarks/agreement.py.

    python scores.py MODEL FOLDER

FOLDER holds `train.npy`, (n, 2) int64, and `asked.npz`: the model's parameters, `n_users` and `n_items`, and the
numbers to start from where it has any. The scores go to `theirs.npy`, (n_users, n_items).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np


def matrix(train: np.ndarray, asked: dict[str, Any]) -> Any:
    from scipy import sparse

    shape = int(asked["n_users"]), int(asked["n_items"])
    return sparse.csr_matrix((np.ones(len(train), np.float32), train.T), shape=shape)


def rectools_dataset(train: np.ndarray, asked: dict[str, Any]) -> Any:
    """Users and items are numbered as the file numbers them."""
    import pandas as pd
    from rectools import Columns
    from rectools.dataset import Dataset, IdMap, Interactions

    table = pd.DataFrame(train, columns=[Columns.User, Columns.Item])
    table[Columns.Weight], table[Columns.Datetime] = 1.0, "2020-09-16"
    users, items = (IdMap(np.arange(int(asked[name]))) for name in ("n_users", "n_items"))
    return Dataset(users, items, Interactions.from_raw(table, users, items))


def ease(folder: Path, train: np.ndarray, asked: dict[str, Any]) -> np.ndarray:
    from rectools.models import EASEModel

    model = EASEModel(regularization=float(asked["l2"])).fit(rectools_dataset(train, asked))
    return matrix(train, asked) @ model.weight


def als(asked: dict[str, Any]) -> Any:
    """implicit's model in float64, its equations solved exactly, from the items' numbers that were given."""
    from implicit.cpu.als import AlternatingLeastSquares

    model = AlternatingLeastSquares(
        factors=asked["items"].shape[1], alpha=1 + float(asked["alpha"]), regularization=float(asked["l2"]),
        iterations=int(asked["iterations"]), use_cg=False, dtype=np.float64, num_threads=1,
    )  # fmt: skip
    model.item_factors = asked["items"].copy()
    return model


def als_scores(model: Any, bought: Any) -> np.ndarray:
    """implicit leaves the users as they were before the items' last turn: they are solved for once more."""
    users = model.recalculate_user(np.arange(bought.shape[0]), bought)
    return users @ model.item_factors.T


def ials_implicit(folder: Path, train: np.ndarray, asked: dict[str, Any]) -> np.ndarray:
    model, bought = als(asked), matrix(train, asked)
    model.fit(bought, show_progress=False)
    return als_scores(model, bought)


def ials_rectools(folder: Path, train: np.ndarray, asked: dict[str, Any]) -> np.ndarray:
    from rectools.models import ImplicitALSWrapperModel

    wrapper = ImplicitALSWrapperModel(als(asked)).fit(rectools_dataset(train, asked))
    return als_scores(wrapper.model, matrix(train, asked))


def lightgcn(folder: Path, train: np.ndarray, asked: dict[str, Any]) -> np.ndarray:
    """RecBole's model on files of its own format, with the numbers that were given in the order of its own ids."""
    import torch
    from recbole.config import Config
    from recbole.data import create_dataset
    from recbole.model.general_recommender.lightgcn import LightGCN

    n_users, n_items = int(asked["n_users"]), int(asked["n_items"])
    target = folder / "fashion"
    target.mkdir()
    lines = "\n".join(f"{u}\t{i}" for u, i in train.tolist())
    (target / "fashion.inter").write_text(f"user_id:token\titem_id:token\n{lines}\n")
    every = "\n".join(map(str, range(n_items)))
    (target / "fashion.item").write_text(f"item_id:token\n{every}\n")
    os.chdir(folder)  # RecBole writes its logs where it stands
    arguments, sys.argv = sys.argv, sys.argv[:1]
    config = Config(
        model="LightGCN", dataset="fashion",
        config_dict={
            "data_path": str(folder), "load_col": {"inter": ["user_id", "item_id"], "item": ["item_id"]},
            "embedding_size": asked["items"].shape[1], "n_layers": int(asked["layers"]), "state": "ERROR",
            "use_gpu": False, "device": "cpu",
        },
    )  # fmt: skip
    sys.argv = arguments
    data = create_dataset(config)
    data._change_feat_format()
    model = LightGCN(config, data)
    places = {
        field: data.token2id(field, np.arange(number).astype(str))
        for field, number in (("user_id", n_users), ("item_id", n_items))
    }
    with torch.no_grad():
        model.user_embedding.weight[places["user_id"]] = torch.as_tensor(asked["users"], dtype=torch.float32)
        model.item_embedding.weight[places["item_id"]] = torch.as_tensor(asked["items"], dtype=torch.float32)
        users, items = model.forward()
    return (users[places["user_id"]] @ items[places["item_id"]].T).numpy()


MODELS = {"ease": ease, "ials-implicit": ials_implicit, "ials-rectools": ials_rectools, "lightgcn": lightgcn}


def main() -> None:
    name, folder = sys.argv[1], Path(sys.argv[2]).resolve()
    with np.load(folder / "asked.npz") as asked:
        scores = MODELS[name](folder, np.load(folder / "train.npy"), dict(asked))
    np.save(folder / "theirs.npy", np.asarray(scores))


if __name__ == "__main__":
    main()
