"""One measurement of one peer, in the peers' own environment. Started by benchmarks/run.py; prints a RESULT line."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from common import Files, answer, peak_bytes, timed, validation_auc, versions


def cornac_data(files: Files) -> Any:
    """The training set with the whole catalogue in it: `from_uir` would leave out what nobody has bought."""
    from cornac.data import Dataset, ImageModality

    users, items = files.train.T
    identity = [{str(i): i for i in range(n)} for n in (files.n_users, files.n_items)]
    data = Dataset(files.n_users, files.n_items, *identity, (users, items, np.ones(len(users))), seed=0)
    modality = ImageModality(features=np.asarray(files.features), ids=list(identity[1]))
    modality.build(id_map=identity[1])
    data.add_modalities(item_image=modality)
    return data


def cornac_vbpr(files: Files, o: argparse.Namespace) -> dict[str, Any]:
    """Interactions a second between batches, from the second batch on, of Cornac's own loop."""
    from cornac.models import VBPR

    data = cornac_data(files)
    loop, moments, sizes = data.uij_iter, [], []

    def watched(*arguments: Any, **named: Any) -> Iterator[Any]:
        for batch in loop(*arguments, **named):
            moments.append(time.perf_counter())
            sizes.append(len(batch[0]))
            if len(moments) > 2 and moments[-1] - moments[1] > o.window:
                return
            yield batch

    data.uij_iter = watched
    half = o.factors // 2
    VBPR(k=half, k2=half, n_epochs=1, batch_size=o.batch, verbose=False, seed=0).fit(data)
    return {"rate": sum(sizes[1:-1]) / (moments[-1] - moments[1])}


def cornac_bpr(files: Files, o: argparse.Namespace) -> dict[str, Any]:
    from cornac.models import BPR

    data = cornac_data(files)

    def fit(epochs: int) -> float:
        model = BPR(k=o.factors, max_iter=epochs, num_threads=o.threads, verbose=False, seed=0)
        return timed(lambda: model.fit(data))

    once, epochs, more = fit(1), 2, 0.0
    while more - once < 0.5:  # an epoch of a small rung is too short for the clock
        epochs *= 4
        more = fit(1 + epochs)
    return {"rate": epochs * len(files.train) / (more - once)}


def cornac_evaluation(files: Files, o: argparse.Namespace) -> dict[str, Any]:
    """Cornac's ranking_eval of AUC, HitRatio@10 and NDCG@10, of the first `o.users` users."""
    import cornac
    from cornac.data import Dataset
    from cornac.eval_methods.base_method import ranking_eval
    from cornac.models import MF

    train = cornac_data(files)
    users = np.arange(min(o.users, files.n_users))
    held = (users, files.test[users], np.ones(len(users)))
    test = Dataset(files.n_users, files.n_items, train.uid_map, train.iid_map, held, seed=0)
    generator = np.random.default_rng(0)
    tables = {
        name: generator.standard_normal((n, o.factors), dtype=np.float32)
        for name, n in (("U", files.n_users), ("V", files.n_items))
    }
    biases = {"Bu": np.zeros(files.n_users, np.float32), "Bi": np.zeros(files.n_items, np.float32)}
    model = MF(k=o.factors, trainable=False, use_bias=False, init_params=tables | biases, verbose=False).fit(train)
    metrics = [cornac.metrics.AUC(), cornac.metrics.HitRatio(k=10), cornac.metrics.NDCG(k=10)]
    seconds = timed(lambda: ranking_eval(model, metrics, train, test, verbose=False))
    return {"seconds": seconds, "users": len(users)}


def matrix(files: Files) -> Any:
    from scipy import sparse

    users, items = files.train.T
    return sparse.csr_matrix((np.ones(len(users), np.float32), (users, items)), shape=(files.n_users, files.n_items))


def curve(step: Callable[[], Any], auc: Callable[[], float], seconds: float, patience: int = 6) -> dict[str, Any]:
    """(training seconds, validation AUC) after each step, until `seconds` or no better AUC for `patience` steps."""
    points, spent, stale = [(0.0, auc())], 0.0, 0
    while spent < seconds and (stale < patience or points[-1][1] < 0.55):  # BPR starts slowly
        spent += timed(step)
        points.append((spent, auc()))
        stale = 0 if points[-1][1] > max(value for _, value in points[:-1]) else stale + 1
    return {"points": points}


def implicit_curve(files: Files, o: argparse.Namespace) -> dict[str, Any]:
    from implicit.cpu.bpr import BayesianPersonalizedRanking

    # One of the factors is the item's bias.
    model = BayesianPersonalizedRanking(
        factors=o.factors, learning_rate=o.rate, regularization=o.l2, iterations=o.epochs, num_threads=o.threads,
        random_state=0,
    )  # fmt: skip
    data = matrix(files)
    model.iterations = 0
    model.fit(data, show_progress=False)
    model.iterations = o.epochs
    return curve(
        lambda: model.fit(data, show_progress=False),
        lambda: validation_auc(files, model.user_factors, model.item_factors),
        o.seconds,
    )


def lightfm_curve(loss: str, files: Files, o: argparse.Namespace) -> dict[str, Any]:
    from lightfm import LightFM

    model = LightFM(
        no_components=o.factors, loss=loss, learning_rate=o.rate, item_alpha=o.l2, user_alpha=o.l2, random_state=0
    )
    data = matrix(files)
    model.fit_partial(data, epochs=0, num_threads=o.threads)

    def auc() -> float:
        offset, items = model.get_item_representations()
        return validation_auc(files, model.get_user_representations()[1], items, offset)

    return curve(lambda: model.fit_partial(data, epochs=o.epochs, num_threads=o.threads), auc, o.seconds)


def lightfm_evaluation(files: Files, o: argparse.Namespace) -> dict[str, Any]:
    """LightFM's auc_score (its compiled ranks) of the first `o.users` users; no other metric."""
    from lightfm import LightFM
    from lightfm.evaluation import auc_score
    from scipy import sparse

    model = LightFM(no_components=o.factors, loss="warp", random_state=0)
    train = matrix(files)
    model.fit_partial(train, epochs=0)
    users = np.arange(min(o.users, files.n_users))
    held = (np.ones(len(users), np.float32), (users, files.test[users]))
    test = sparse.csr_matrix(held, shape=train.shape)
    seconds = timed(lambda: auc_score(model, test, train, num_threads=o.threads, check_intersections=False))
    return {"seconds": seconds, "users": len(users)}


def recbole(model: str, train_only: bool, files: Files, o: argparse.Namespace) -> dict[str, Any]:
    """RecBole's own training loop (or full-sort evaluation) on files of its own format."""
    import torch
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_model, get_trainer, init_seed

    torch.set_num_threads(o.threads)
    users = np.arange(min(o.users, files.n_users))
    parts = {"train": files.train, "valid": np.stack([users, files.validation[users]], 1)}
    parts["test"] = np.stack([users, files.test[users]], 1)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "fashion"
        target.mkdir()
        for name, pairs in parts.items():
            lines = "\n".join(f"{u}\t{i}" for u, i in pairs.tolist())
            (target / f"fashion.{name}.inter").write_text(f"user_id:token\titem_id:token\n{lines}\n")
        every = "\n".join(map(str, range(files.n_items)))
        (target / "fashion.item").write_text(f"item_id:token\n{every}\n")
        os.chdir(folder)  # RecBole writes its logs where it stands
        settings: dict[str, Any] = {
            "data_path": folder, "benchmark_filename": ["train", "valid", "test"], "embedding_size": o.factors,
            "load_col": {"inter": ["user_id", "item_id"], "item": ["item_id"]}, "train_batch_size": o.batch,
            "eval_batch_size": 2**24, "metrics": ["GAUC", "Hit", "NDCG"], "topk": 10, "valid_metric": "GAUC",
            "eval_args": {"split": {"LS": "valid_and_test"}, "order": "RO", "mode": "full", "group_by": "user"},
            "train_neg_sample_args": {
                "distribution": "uniform", "sample_num": 1, "alpha": 1.0, "dynamic": False, "candidate_num": 0,
            },
            "show_progress": False, "state": "ERROR", "use_gpu": False, "device": "cpu", "worker": 0,
        }  # fmt: skip
        arguments, sys.argv = sys.argv, sys.argv[:1]
        config = Config(model=model, dataset="fashion", config_dict=settings)
        sys.argv = arguments
        init_seed(0, True)
        data = create_dataset(config)
        train, valid, _ = data_preparation(config, data)
        network = get_model(config["model"])(config, train._dataset).to("cpu")
        trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, network)
        if not train_only:
            seconds = timed(lambda: trainer.evaluate(valid, load_best_model=False, show_progress=False))
            return {"seconds": seconds, "users": len(users)}
        moments: list[float] = []
        sizes: list[int] = []

        class Watched:
            shuffle = False

            def __iter__(self) -> Iterator[Any]:
                for batch in train:
                    moments.append(time.perf_counter())
                    sizes.append(int(batch["label"].sum()) if "label" in batch else len(batch))
                    if len(moments) > 2 and moments[-1] - moments[1] > o.window:
                        return
                    yield batch

        trainer._train_epoch(Watched(), 0, show_progress=False)
        return {"rate": sum(sizes[1:-1]) / (moments[-1] - moments[1])}


MEASUREMENTS: dict[str, Callable[[Files, argparse.Namespace], dict[str, Any]]] = {
    "cornac-vbpr": cornac_vbpr,
    "cornac-bpr": cornac_bpr,
    "cornac-evaluation": cornac_evaluation,
    "implicit-curve": implicit_curve,
    "lightfm-warp-curve": partial(lightfm_curve, "warp"),
    "lightfm-bpr-curve": partial(lightfm_curve, "bpr"),
    "lightfm-evaluation": lightfm_evaluation,
    "recbole-bpr": partial(recbole, "BPR", True),
    "recbole-fm": partial(recbole, "FM", True),
    "recbole-evaluation": partial(recbole, "BPR", False),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=MEASUREMENTS)
    parser.add_argument("folder")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--factors", type=int, default=64)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--window", type=float, default=3.0)
    parser.add_argument("--users", type=int, default=500)
    parser.add_argument("--rate", type=float, default=0.05)
    parser.add_argument("--l2", type=float, default=0.0)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=30.0)
    o = parser.parse_args()
    result = MEASUREMENTS[o.name](Files(o.folder), o)
    answer(
        result
        | {
            "peak": peak_bytes(),
            "versions": versions("cornac", "implicit", "rectools-lightfm", "recbole", "torch", "numpy"),
        }
    )


if __name__ == "__main__":
    main()
