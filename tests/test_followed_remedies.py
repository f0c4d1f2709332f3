"""What the sentences about features, runs, matrices, models and questions advise is done, and it works.

Those about tables are followed in data/test_remedies_of_tables.py.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from commands import call
from toy import planted_dataset, toy_data

from imgrec_lib import (
    InputError,
    Request,
    find_runs,
    open_run,
    open_trained,
    read_features,
    train_run,
)
from imgrec_lib.explorer import State, find_item, find_user
from imgrec_lib.features.controls import check_control
from imgrec_lib.matrix import read_matrix
from imgrec_lib.models import build_model
from imgrec_lib.runs import load_inputs, refit
from imgrec_lib.serving import Trained
from imgrec_lib.training import fit

IDS = ["shirt", "skirt", "shoe"]
VECTORS = np.eye(3, dtype=np.float32)


@dataclass(frozen=True)
class Advice:
    """What goes wrong, the sentence (a regular expression) and what it advises, which must go well."""

    wrong: Callable[[Path], Any]
    sentence: str
    advised: Callable[[Path], Any]


def saved(folder: Path, name: str, **arrays: Any) -> Path:
    path = folder / name
    if path.suffix == ".npy":
        np.save(path, *arrays.values())
    elif path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        pd.DataFrame(arrays).to_parquet(path)
    return path


def with_ids(folder: Path) -> Path:
    (folder / "v.ids.txt").write_text("\n".join(IDS))
    return saved(folder, "v.npy", values=VECTORS)


def matrix(text: str) -> Callable[[Path], Any]:
    def read(folder: Path) -> Any:
        (folder / "m.yaml").write_text(text)
        return read_matrix(folder / "m.yaml")

    return read


def built(name: str, **options: Any) -> Callable[[Path], Any]:
    return lambda folder: build_model(name, toy_data(), **options)


def fitted(name: str, **options: Any) -> Callable[[Path], Any]:
    def run(folder: Path) -> Any:
        data = toy_data()
        return fit(build_model(name, data, epochs=1, **options), data, lambda _: 0.5, progress=False)

    return run


def request(**values: Any) -> Callable[[Path], Any]:
    return lambda folder: Request.from_json({"model": "vbpr"} | values).check()


def of_file(path: Callable[[Path], Path], **options: Any) -> Callable[[Path], Any]:
    return lambda folder: read_features(path(folder), IDS, **options)


ADVICE = [
    # features of one's own
    Advice(lambda f: read_features(VECTORS, IDS), "give ids", lambda f: read_features(VECTORS, IDS, ids=IDS)),
    Advice(
        lambda f: read_features(VECTORS, IDS),
        "DataFrame whose index",
        lambda f: read_features(pd.DataFrame(VECTORS, index=IDS), IDS),
    ),
    Advice(
        lambda f: read_features(VECTORS, IDS), "in_order=True", lambda f: read_features(VECTORS, IDS, in_order=True)
    ),
    Advice(of_file(lambda f: saved(f, "v.npy", values=VECTORS)), "an id a line", of_file(with_ids)),
    Advice(
        lambda f: read_features(VECTORS[:2], IDS, in_order=True),
        "give their ids",
        lambda f: read_features(VECTORS[:2], IDS, ids=IDS[:2]),
    ),
    Advice(
        lambda f: read_features(VECTORS, IDS, ids=IDS[:2]),
        "one id for each",
        lambda f: read_features(VECTORS, IDS, ids=IDS),
    ),
    Advice(
        lambda f: read_features(VECTORS, IDS, ids=["shoe", "shoe", "shirt"]),
        "keep one vector of each",
        lambda f: read_features(VECTORS[1:], IDS, ids=["shoe", "shirt"]),
    ),
    Advice(
        lambda f: read_features(VECTORS * np.nan, IDS, ids=IDS),
        "leave these items out",
        lambda f: read_features(VECTORS[:2], IDS, ids=IDS[:2]),
    ),
    Advice(
        of_file(lambda f: saved(f, "v.npz", a=VECTORS, b=VECTORS, item=IDS)),
        "one table of vectors",
        of_file(lambda f: saved(f, "v.npz", a=VECTORS, item=IDS)),
    ),
    Advice(
        of_file(lambda f: saved(f, "v.parquet", x=[1, 2, 3])),
        "call it 'item'",
        of_file(lambda f: saved(f, "v.parquet", item=IDS, x=[1, 2, 3])),
    ),
    Advice(
        of_file(lambda f: saved(f, "v.parquet", item=IDS, x=[1, 2, 3], y=IDS)),
        "keep the ids and numbers",
        of_file(lambda f: saved(f, "v.parquet", item=IDS, x=[1, 2, 3])),
    ),
    Advice(
        of_file(lambda f: saved(f, "v.parquet", item=IDS, x=[[1.0], [2.0, 3.0], [4.0]])),
        "make them equal",
        of_file(lambda f: saved(f, "v.parquet", item=IDS, x=[[1.0], [2.0], [4.0]])),
    ),
    Advice(of_file(lambda f: f / "v.mat"), r"must be one of \.npy", of_file(with_ids)),
    Advice(
        lambda f: planted_dataset()[0].training_data(planted_dataset()[1]),
        "in_order=True",
        lambda f: planted_dataset()[0].training_data(planted_dataset()[1], in_order=True),
    ),
    # what is asked for
    Advice(request(model="bpr-mf", control="shuffled pictures"), "leave it out", request(model="bpr-mf")),
    Advice(
        request(feature_files={"words": "text"}, control="shuffled pictures"),
        "call the control",
        request(feature_files={"words": "text"}, control="shuffled features"),
    ),
    Advice(request(backbone="resnet"), "did you mean 'resnet50'", request(backbone="resnet50")),
    Advice(request(profile="papre"), "did you mean 'paper'", request(profile="paper")),
    Advice(request(dataset="table"), "needs a root", request(dataset="table", root="shop")),
    Advice(request(dataset="wardrobe", root="shop"), "leave it out", request(dataset="wardrobe")),
    Advice(request(device="cdua"), "write cpu", request(device="cpu")),
    Advice(request(device="cuda:99"), "choose cpu", request(device="cpu")),
    Advice(lambda f: check_control("shuffled picturse"), "did you mean", lambda f: check_control("shuffled pictures")),
    # models
    Advice(
        built("dvbpr", cold_negatives=False, batches="interactions"),
        "needs batches='items'",
        built("dvbpr", cold_negatives=False, batches="items"),
    ),
    Advice(built("concars", factors=6), r"2, 4, 8", built("concars", factors=4)),
    Advice(built("ease", gigabytes=1e-9), "raise its parameter gigabytes", built("ease", gigabytes=1.0)),
    Advice(
        fitted("bpr-mf", restore="last", patience=3), "set patience to 0", fitted("bpr-mf", restore="last", patience=0)
    ),
    Advice(
        fitted("bpr-mf", optimiser="sgd", weight_decay=0.1),
        "choose adam",
        fitted("bpr-mf", optimiser="adam", weight_decay=0.1),
    ),
    Advice(fitted("bpr-mf", schedule="cosine"), "'constant' or 'linear'", fitted("bpr-mf", schedule="linear")),
    # matrices and searches
    Advice(matrix("models: bpr-mf"), "must be list of str", matrix("models: [bpr-mf]")),
    Advice(matrix("- bpr-mf"), "such as 'dataset: wardrobe'", matrix("dataset: wardrobe")),
    Advice(matrix("device: cpu\ndevices: [cpu]"), "keep one", matrix("device: cpu")),
    Advice(
        matrix("dataset: wardrobe\ndatasets: {wardrobe: {}}"),
        "write it below one of the datasets",
        matrix("datasets: {wardrobe: {dataset: wardrobe}}"),
    ),
    Advice(matrix("models: [bpr-mf]\nprofiles: [paper2]"), "'bpr-mf:default'", matrix("models: ['bpr-mf:default']")),
    Advice(matrix("features: {a: text}\nfeature_sets: {b: {a: text}}"), "keep one", matrix("features: {a: text}")),
    Advice(matrix("grid: {bpr-mf: {factors: 4}}"), "a list of values", matrix("grid: {bpr-mf: {factors: [4]}}")),
    Advice(
        matrix("search: {models: [bpr-mf], trials: 2, space: {bpr-mf: {l2: {low: 1}}}}"),
        "'low' and 'high'",
        matrix("search: {models: [bpr-mf], trials: 2, space: {bpr-mf: {l2: {low: 1, high: 2}}}}"),
    ),
    # the explorer's addresses
    Advice(lambda f: State.at("number=x"), "is no number", lambda f: State.at("number=9")),
    Advice(lambda f: State(number=10**9), "must be from", lambda f: State(number=20)),
    Advice(
        lambda f: State(region=(0.0, 1.0)),
        r"\[left, top, right, bottom\]",
        lambda f: State(region=(0.0, 0.0, 1.0, 1.0)),
    ),
    Advice(
        lambda f: find_user(planted_dataset()[0], "u1"[:1]),
        "write more of the id",
        lambda f: find_user(planted_dataset()[0], "u14"),
    ),
    Advice(
        lambda f: find_item(planted_dataset()[0], "shirt"),
        "look up the item's id",
        lambda f: find_item(planted_dataset()[0], planted_dataset()[0].items["item"][3]),
    ),
]


@pytest.mark.parametrize("advice", ADVICE, ids=lambda advice: advice.sentence)
@pytest.mark.filterwarnings("ignore::imgrec_lib.errors.InputWarning")
def test_what_is_advised_helps(advice: Advice, tmp_path: Path) -> None:
    followed(advice, tmp_path)


def followed(advice: Advice, folder: Path) -> None:
    with pytest.raises(InputError, match=advice.sentence):
        advice.wrong(folder)
    advice.advised(folder)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shop of one's own with vectors of one's own, and finished runs on it."""
    folder = tmp_path_factory.mktemp("advice")
    (folder / "shop").mkdir()
    pairs = pd.DataFrame(
        [(f"u{u}", f"i{(u * k) % 11}") for u in range(1, 11) for k in range(1, 6)], columns=["user", "item"]
    )
    pairs.to_csv(folder / "shop" / "interactions.csv", index=False)
    pd.DataFrame({"item": [f"i{i}" for i in range(11)]}).to_csv(folder / "shop" / "items.csv", index=False)
    np.savez(folder / "v.npz", vectors=np.random.default_rng(0).normal(size=(11, 4)), item=[f"i{i}" for i in range(11)])
    for model in ("bpr-mf", "poprank", "vbpr", "item-knn"):
        files = {"mine": str(folder / "v.npz")} if model == "vbpr" else {}
        asked = Request(
            model,
            dataset="table",
            root=str(folder / "shop"),
            dataset_options={"min_interactions": 3},
            feature_files=files,
            parameters={"epochs": 1} if model in ("bpr-mf", "vbpr") else {},
        )
        data, features = asked.load(progress=False)
        train_run(data, asked, folder / "runs" / model, features=features, progress=False)
    return folder


def of_run(name: str, asked: Callable[[Trained], Any]) -> Callable[[Path], Any]:
    return lambda folder: asked(open_trained(folder / "runs" / name, progress=False))


def moved(root: str) -> Callable[[Path], Any]:
    def opened(folder: Path) -> Any:
        if (folder / "shop").exists():
            (folder / "shop").rename(folder / "elsewhere")
        return load_inputs(open_run(folder / "runs" / "bpr-mf"), progress=False, root=folder / root if root else None)

    return opened


def damaged(folder: Path) -> Any:
    (folder / "runs" / "poprank" / "run.json").write_text("{")
    return find_runs(folder / "runs")


def trained_anew(folder: Path) -> Any:
    asked = open_run(folder / "runs" / "item-knn").request
    data, _ = asked.load(progress=False)
    run = folder / "runs" / "poprank"
    shutil.rmtree(run)
    train_run(data, Request("poprank"), run, progress=False)
    return find_runs(folder / "runs")


def train_over(name: str) -> Callable[[Path], Any]:
    def run(folder: Path) -> Any:
        asked = Request("poprank", dataset="table", root=str(folder / "shop"), dataset_options={"min_interactions": 3})
        return train_run(asked.load(progress=False)[0], asked, folder / "runs" / name, progress=False)

    return run


BASKET = pd.DataFrame({"user": ["new"], "item": ["i1"]})

QUESTIONS = [
    Advice(
        of_run("bpr-mf", lambda t: t.recommend(["u11"])),
        "did you mean 'u1'",
        of_run("bpr-mf", lambda t: t.recommend(["u1"])),
    ),
    Advice(
        of_run("bpr-mf", lambda t: t.recommend(baskets=BASKET)),
        "take one of .*item-knn",
        of_run("item-knn", lambda t: t.recommend(baskets=BASKET)),
    ),
    Advice(
        of_run("bpr-mf", lambda t: t.recommend(one_per_group=True)),
        "leave one_per_group out",
        of_run("bpr-mf", lambda t: t.recommend()),
    ),
    Advice(
        of_run("bpr-mf", lambda t: t.recommend(items=["i1"], without=["i1"])),
        "leave one of them out",
        of_run("bpr-mf", lambda t: t.recommend(items=["i1"])),
    ),
    Advice(
        of_run("bpr-mf", lambda t: t.score(pd.DataFrame({"who": ["u1"], "item": ["i1"]}))),
        "name it so",
        of_run("bpr-mf", lambda t: t.score(pd.DataFrame({"user": ["u1"], "item": ["i1"]}))),
    ),
    Advice(
        of_run("bpr-mf", lambda t: t.similar(by="picture")),
        "ask by 'learned'",
        of_run("bpr-mf", lambda t: t.similar(by="learned")),
    ),
    Advice(
        of_run("vbpr", lambda t: t.similar(by="mien")),
        "did you mean 'mine'",
        of_run("vbpr", lambda t: t.similar(by="mine")),
    ),
    Advice(
        lambda f: open_run(f / "runs" / "none"),
        "run the training again",
        lambda f: open_run(train_over("none")(f).folder),
    ),
    Advice(train_over("bpr-mf"), "choose another folder", train_over("other")),
    Advice(damaged, "delete it and run the training again", trained_anew),
    Advice(
        lambda f: refit(refit(open_run(f / "runs" / "poprank"), f / "r", progress=False), f / "s", progress=False),
        "name a run that was tested",
        lambda f: refit(open_run(f / "runs" / "poprank"), f / "s", progress=False),
    ),
    Advice(moved(""), "with --root .in Python, root=", moved("elsewhere")),
]


@pytest.mark.filterwarnings("ignore::imgrec_lib.errors.InputWarning")
@pytest.mark.parametrize("advice", QUESTIONS, ids=lambda advice: advice.sentence)
def test_what_is_advised_about_runs_helps(advice: Advice, shop: Path, tmp_path: Path) -> None:
    followed(advice, copied(shop, tmp_path))


def copied(shop: Path, folder: Path) -> Path:
    """The shop and its runs, as if they had been made in another folder."""
    copy = folder / "copy"
    shutil.copytree(shop, copy)
    for record in (copy / "runs").glob("*/run.json"):
        record.write_text(record.read_text().replace(str(shop), str(copy)))
    return copy


SHOP = ("--no-notebook", "--dataset", "table", "--root", "shop", "-o", "min_interactions=3", "--quiet")
LISTS = ("compare-lists", "lists.csv", "--out", "runs/theirs", "--quiet")
COMMANDS = [
    (LISTS, "give --run or --dataset", (*LISTS, "--run", "runs/poprank")),
    (
        ("recommend", "runs/poprank", "--out", "a.xlsx"),
        "choose one of these endings",
        ("recommend", "runs/poprank", "--out", "a.csv"),
    ),
    (
        ("recommend", "runs/poprank", "--where", "item"),
        "write key=value",
        ("recommend", "runs/poprank", "--where", "item=i1"),
    ),
    (("evaluate", "runs/moved"), "say where they lie now with --root", ("evaluate", "runs/moved", "--root=~/shop")),
    (
        ("evaluate", "runs/poprank", "--root", "a", "--root", "b"),
        "write NAME=PATH",
        ("evaluate", "runs/poprank", "--root", "table=shop"),
    ),
    (
        ("train", "--model", "bpr-fm", "--out", "a"),
        "did you mean 'bpr-mf'",
        ("train", "--model", "poprank", "--out", "a", *SHOP),
    ),
    (
        ("train", "--model", "vbpr", "--out", "b", *SHOP),
        "--features",
        ("train", "--model", "vbpr", "--out", "b", *SHOP, "-p", "epochs=1", "--features", "./a=b/v.npz"),
    ),
]


def test_what_commands_advise_helps(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = copied(shop, tmp_path)
    shutil.copytree(copy / "runs" / "poprank", copy / "runs" / "moved")
    record = copy / "runs" / "moved" / "run.json"
    record.write_text(record.read_text().replace(f"{copy}/shop", f"{copy}/gone"))
    (copy / "lists.csv").write_text("user,item,rank\nu1,i3,1\n")
    monkeypatch.chdir(copy)
    monkeypatch.setenv("HOME", str(copy))
    (copy / "a=b").mkdir()
    shutil.move(copy / "v.npz", copy / "a=b" / "v.npz")
    for wrong, sentence, advised in COMMANDS:
        status, _, said = call(monkeypatch, capsys, *wrong)
        assert status == 2 and sentence in said, said
        status, _, said = call(monkeypatch, capsys, *advised)
        assert status == 0, said
