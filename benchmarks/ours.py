"""One measurement of this library, in a process of its own. Started by benchmarks/run.py; prints a RESULT line."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from common import Files, answer, peak_bytes, timed, validation_auc, versions
from data import open_dataset
from torch import Tensor

from imgrec_lib import build_model, evaluate, fit
from imgrec_lib.data.dataset import HeldOut
from imgrec_lib.evaluation.neighbours import search_neighbours
from imgrec_lib.evaluation.ranking import BLOCK_BYTES, TILE_BYTES, TILE_ITEMS
from imgrec_lib.models.base import InnerProduct, Recommender, TrainSettings
from imgrec_lib.models.imgrec_ft import ImgRecFT
from imgrec_lib.training import rows

USERS_AT_ONCE = 5_000
"""Users that are evaluated between two looks at the clock."""

STAGES = ("sampling", "idle rows", "forward", "backward", "optimiser", "end of epoch")


def model_of(name: str, files: Files, o: argparse.Namespace) -> tuple[Recommender, Any]:
    """A model of `o.factors` latent dimensions in all, without penalties, as its peers are run."""
    data = open_dataset(files).training_data(files.features if name in ("vbpr", "imgrec-ft") else None, in_order=True)
    parameters: dict[str, Any] = {"factors": o.factors}
    if name == "vbpr":
        half = o.factors // 2
        parameters = {"factors": half, "visual_factors": half, "l2": 0.0, "l2_negative": 0.0, "l2_bias": 0.0}
        parameters["l2_visual"] = 0.0
    elif name == "imgrec-ft":
        parameters["l2_users"] = 0.0
    elif name == "fm-id":
        parameters |= {"l2": 0.0, "l2_linear": 0.0}
    else:
        parameters |= {"l2": o.l2, "l2_bias": 0.0} | ({"l2_negative": o.l2} if name == "bpr-mf" else {})
    return build_model(name, data, **parameters), data


def imgrec_ft(files: Files, o: argparse.Namespace) -> ImgRecFT:
    model, _ = model_of("imgrec-ft", files, o)
    assert isinstance(model, ImgRecFT)
    return model


def train(model: Recommender, data: Any, settings: TrainSettings, steps: int, validate: Any, device: str) -> Any:
    model.phases = (settings,)
    if steps:
        model.steps = lambda sampler, settings: steps  # type: ignore[method-assign]
    return fit(model, data, validate, device=device, progress=False)


def rate(name: str, files: Files, o: argparse.Namespace) -> dict[str, Any]:
    """Interactions a second of training through `fit`: whole epochs where the window allows, else shorter ones."""
    model, data = model_of(name, files, o)
    settings = TrainSettings(
        batch_size=o.batch, negatives=1, positives_by="interaction", epochs=1, patience=0, learning_rate=1e-3,
        precision=o.precision,
    )  # fmt: skip
    whole = max(1, len(files.train) // o.batch)
    few = min(whole, 5)
    trial = train(model, data, replace(settings, epochs=2), few, lambda model: 0.5, o.device).curve["seconds"].iloc[-1]
    steps = int(min(whole, max(few, o.window / (trial / few))))
    epochs = max(1, int(o.window / (steps * trial / few)))
    result = train(model, data, replace(settings, epochs=min(epochs, 20)), steps, lambda model: 0.5, o.device)
    seconds = result.curve["seconds"].iloc[1:] / steps
    return {"rate": o.batch / float(seconds.median()), "steps": steps}


def curve(name: str, files: Files, o: argparse.Namespace) -> dict[str, Any]:
    """(training seconds, validation AUC) after each epoch of `fit`."""
    model, data = model_of(name, files, o)

    def auc(model: Recommender) -> float:
        scorer = model.scorer()
        assert isinstance(scorer, InnerProduct)
        return validation_auc(files, scorer.users.cpu().numpy(), scorer.items.cpu().numpy())

    optimiser = {"epsilon": 1 / o.batch} if o.optimiser == "adagrad" else {}
    settings = TrainSettings(
        optimiser=o.optimiser, learning_rate=o.rate, batch_size=o.batch, negatives=o.negatives,
        positives_by="interaction", epochs=o.epochs, patience=6, **optimiser,
    )  # fmt: skip
    # The compiled loops of the peers are part of their installation; ours are compiled at the first step of all.
    train(model, data, replace(settings, epochs=1), 1, lambda model: 0.5, o.device)
    model, _ = model_of(name, files, o)
    began = time.perf_counter()

    def validate(model: Recommender) -> float:  # gives up when the time is spent
        return auc(model) if time.perf_counter() - began < 3 * o.seconds else 0.0

    table = train(model, data, settings, 0, validate, o.device).curve
    seconds = table["seconds"].cumsum()
    kept = table["validation_auc"] > 0
    return {"points": list(zip(seconds[kept].tolist(), table["validation_auc"][kept].tolist(), strict=True))}


def profile(name: str, files: Files, o: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds a step by stage, and what a step looks up, from the calls that `fit` makes."""
    model, data = model_of(name, files, o)
    settings = replace(model.phases[0], batch_size=o.batch, negatives=o.negatives, epochs=1, patience=0)
    train(model, data, settings, 2, lambda model: 0.5, o.device)  # loads the compiled loops
    spent, active = dict.fromkeys(STAGES, 0.0), set[str]()
    counts = {"users": 0, "items": 0, "pairs": 0, "steps": 0}

    def watch(owner: Any, method: str, stage: str, look: Callable[[Any], None] | None = None) -> None:
        original = getattr(owner, method)

        def watched(*arguments: Any, **named: Any) -> Any:
            # One optimiser's step calls another's, and the end of an epoch moves idle rows.
            if stage in active or "end of epoch" in active:
                return original(*arguments, **named)
            active.add(stage)
            began = time.perf_counter()
            result = original(*arguments, **named)
            spent[stage] += time.perf_counter() - began
            active.remove(stage)
            if look is not None:
                look(result)
            return result

        setattr(owner, method, watched)

    def look(batch: Any) -> None:
        counts["steps"] += 1
        counts["users"] += len(batch.users.unique())
        counts["items"] += len(torch.cat([batch.positives.unsqueeze(1), batch.negatives], 1).unique())
        counts["pairs"] += batch.negatives.numel()

    watch(model, "sample", "sampling", look)
    watch(model, "loss", "forward")
    watch(Tensor, "backward", "backward")
    for kind in (torch.optim.Adam, torch.optim.Adagrad, rows.RowAdam, rows.RowAdagrad):
        watch(kind, "step", "optimiser")
    watch(rows.RowAdam, "look_up", "idle rows")
    watch(rows.RowAdam, "catch_up", "end of epoch")
    steps = max(1, min(len(files.train) // o.batch, 40))
    train(model, data, settings, steps, lambda model: 0.5, o.device)
    spent["forward"] -= spent["idle rows"]
    n = counts.pop("steps")
    spent["end of epoch"] *= n / max(n, len(files.train) // o.batch)  # once an epoch, however few steps were watched
    milliseconds = {stage: 1000 * seconds / n for stage, seconds in spent.items()}
    return {"milliseconds": milliseconds, "looked up": {kind: count / n for kind, count in counts.items()}}


def evaluation(files: Files, o: argparse.Namespace) -> dict[str, Any]:
    """`evaluate` over everything and the bare matrix products in the same tiles, the fastest that we know, in turn.

    In parts of the users, of a second or two each, and every part at its best of all rounds: the speed of a shared
    machine changes within the minute that whole rounds take.
    """
    dataset = open_dataset(files)
    generator = torch.Generator().manual_seed(0)
    users, items = (torch.randn(n, o.factors, generator=generator).to(o.device) for n in (files.n_users, files.n_items))
    scorer = InnerProduct(users, items)
    size = (TILE_BYTES if o.device == "cpu" else BLOCK_BYTES) // (4 * TILE_ITEMS)
    buffer = torch.empty(size * TILE_ITEMS, device=o.device)

    def bare(chosen: np.ndarray) -> None:
        for some in users[torch.from_numpy(chosen)].split(size):
            for part in items.split(TILE_ITEMS):
                shape = len(some), len(part)
                torch.mm(some, part.T, out=buffer[: shape[0] * shape[1]].view(shape))
        if o.device != "cpu":
            torch.cuda.synchronize()

    def exact(chosen: np.ndarray) -> None:
        targets = np.full_like(files.test, -1)
        targets[chosen] = files.test[chosen]
        evaluate(scorer, replace(dataset, test=HeldOut(targets)), protocols=["exact"], device=o.device)

    parts = np.array_split(files.test.argsort(kind="stable"), max(1, files.n_users // USERS_AT_ONCE))
    rounds = [[(timed(partial(bare, part)), timed(partial(exact, part))) for part in parts] for _ in range(o.repeats)]
    fastest = np.array(rounds).min(0).sum(0)
    return {"bare": float(fastest[0]), "seconds": float(fastest[1]), "users": files.n_users}


def evaluation_memory(files: Files, o: argparse.Namespace) -> dict[str, Any]:
    """Peak memory of a process that evaluates, above what it held before: the factors are in both."""
    dataset = open_dataset(files)
    scorer = InnerProduct(torch.randn(files.n_users, o.factors), torch.randn(files.n_items, o.factors))
    before = peak_bytes()
    evaluate(scorer, dataset, protocols=["exact"])
    return {"above": peak_bytes() - before}


def training_memory(files: Files, o: argparse.Namespace) -> dict[str, Any]:
    """Peak memory of a whole process that trains ImgRec-FT with its default settings, then embeds the catalogue."""
    data = open_dataset(files).training_data(files.features, in_order=True)
    model = build_model("imgrec-ft", data)
    train(model, data, replace(model.phases[0], epochs=1, patience=0), 4, lambda model: 0.5, "cpu")
    model.scorer()
    settings = model.phases[0]
    return {"batch": settings.batch_size, "negatives": settings.negatives}


def start_up(files: Files, o: argparse.Namespace) -> dict[str, Any]:
    """Seconds from files to a model that is ready to train, with its sampler; features are memory-mapped."""
    from imgrec_lib.data.sampler import Sampler

    def opened() -> None:
        again = Files(files.folder)
        Sampler(open_dataset(again).training_data(again.features, in_order=True), 0)

    return {"seconds": min(timed(opened) for _ in range(3))}


def neighbours(files: Files, o: argparse.Namespace) -> dict[str, Any]:
    """Ten nearest of `o.users` items: exact, and approximate at several numbers of probes."""
    queries = np.random.default_rng(0).permutation(files.n_items)[: o.users]
    results = []
    spaces = {
        "visual": files.features,
        "latent": np.random.default_rng(1).normal(size=(files.n_items, 64)).astype("f4"),
    }
    for space, vectors in spaces.items():
        for probes in (0, 1, 8, 32):
            began = time.perf_counter()
            found = search_neighbours(vectors, queries, 10, probes=probes)
            seconds = time.perf_counter() - began
            results.append({"space": space, "probes": probes, "seconds": seconds, "recall": found.recall})
    return {"searches": results, "queries": len(queries)}


def machine(files: Files, o: argparse.Namespace) -> dict[str, Any]:
    """What the machine can do: a large product, a copy, and scattered rows of features; the best of several."""
    a, b = torch.randn(2048, 2048, device=o.device), torch.randn(2048, 2048, device=o.device)
    large = torch.empty(2**26)
    target = torch.empty_like(large)
    rows = torch.from_numpy(np.random.default_rng(0).integers(0, files.n_items, 8192))
    features = torch.from_numpy(np.asarray(files.features[:]))

    def best(work: Callable[[], Any]) -> float:
        return min(timed(work) for _ in range(9))

    a16, b16 = a.bfloat16(), b.bfloat16()
    return {
        "flops": 2 * 2048**3 / best(lambda: a @ b),
        "bfloat16 flops": 2 * 2048**3 / best(lambda: a16 @ b16),
        "bandwidth": 2 * large.nbytes / best(lambda: target.copy_(large)),
        "gather": 2 * 8192 * features.shape[1] * 4 / best(lambda: features.index_select(0, rows)),
    }


def scripts_loop(files: Files, o: argparse.Namespace) -> dict[str, Any]:
    """The way the ImgRec scripts work, told again in our own words, with ImgRec-FT as the model and torch under it.

    A training example is drawn by itself: a user, one of its rows of the table of interactions, and an item that is
    looked for in that user's column. The batch is assembled in Python lists, the pictures' features from a dict. The
    evaluation goes user by user: 101 examples are assembled and scored, sorted and searched.
    """
    model = imgrec_ft(files, o)
    table = pd.DataFrame(files.train, columns=["user", "item"])
    features = {i: files.features[i] for i in range(files.n_items)}
    everyone = table["user"].unique()
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-4)
    random = np.random.default_rng(0)

    def example() -> tuple[int, int, int]:
        user = random.choice(everyone)
        own = table[table["user"] == user]["item"]
        positive = int(random.choice(own.to_numpy()))
        negative = int(random.integers(files.n_items))
        while negative in own.to_numpy():
            negative = int(random.integers(files.n_items))
        return int(user), positive, negative

    def logits(users: list[int], items: list[int]) -> Tensor:
        pictures = torch.from_numpy(np.stack([features[i] for i in items]))
        visual = torch.relu(model.layer(pictures))
        z = model.item_table[torch.tensor(items)] + visual @ model.image_weight + model.item_bias
        return ((model.user_table[torch.tensor(users)] + model.user_bias) * z).sum(1)

    def step() -> None:
        drawn = [example() for _ in range(o.batch)]
        users, positives, negatives = (list(column) for column in zip(*drawn, strict=True))
        both = logits(users + users, positives + negatives)
        loss = F.binary_cross_entropy_with_logits(both, torch.tensor([1.0] * o.batch + [0.0] * o.batch))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    def score(user: int) -> float:
        items = [int(files.test[user]), *random.integers(0, files.n_items, 100).tolist()]
        with torch.no_grad():
            values = logits([user] * len(items), items).numpy()
        ranks = pd.Series(values, index=range(len(items))).sort_values(ascending=False)
        return 1 - list(ranks.index).index(0) / 100

    step()
    spent, steps = 0.0, 0
    while spent < o.window:
        spent, steps = spent + timed(step), steps + 1
    users = random.integers(0, files.n_users, 200).tolist()
    return {"rate": o.batch * steps / spent, "evaluated": len(users) / timed(lambda: [score(user) for user in users])}


def sampled_evaluation(files: Files, o: argparse.Namespace) -> dict[str, Any]:
    """Users a second of our `imgrec-100`, negatives drawn and items embedded included: what `scripts_loop` does."""
    model = imgrec_ft(files, o)
    dataset = open_dataset(files)
    one = torch.zeros(1, dtype=torch.int64)
    InnerProduct(model.user_table, model.item_table).pairs(one, one.unsqueeze(1))  # loads the compiled loop
    return {"evaluated": files.n_users / timed(lambda: evaluate(model, dataset, protocols=["imgrec-100"]))}


MEASUREMENTS: dict[str, Callable[[Files, argparse.Namespace], dict[str, Any]]] = {
    **{f"{name}-rate": partial(rate, name) for name in ("bpr-mf", "fm-id", "vbpr", "imgrec-ft")},
    **{f"{name}-curve": partial(curve, name) for name in ("bpr-mf", "warp")},
    **{f"{name}-profile": partial(profile, name) for name in ("bpr-mf", "warp", "vbpr", "imgrec-ft")},
    "evaluation": evaluation,
    "evaluation-memory": evaluation_memory,
    "sampled-evaluation": sampled_evaluation,
    "training-memory": training_memory,
    "start-up": start_up,
    "neighbours": neighbours,
    "machine": machine,
    "scripts-loop": scripts_loop,
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=MEASUREMENTS)
    parser.add_argument("folder")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--factors", type=int, default=64)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--negatives", type=int, default=1)
    parser.add_argument("--window", type=float, default=3.0)
    parser.add_argument("--users", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--optimiser", default="adam")
    parser.add_argument("--rate", type=float, default=0.01)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--l2", type=float, default=0.0)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=30.0)
    o = parser.parse_args()
    torch.set_num_threads(o.threads)
    result = MEASUREMENTS[o.name](Files(o.folder), o)
    answer(result | {"peak": peak_bytes(), "versions": versions("torch", "numpy", "pandas", "faiss-cpu")})


if __name__ == "__main__":
    main()
