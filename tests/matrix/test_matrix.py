"""The matrix: its file, its plan, its driver, and what is left when one of its processes is killed."""

from __future__ import annotations

import json
import os
import pickle
import signal
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
import yaml
from narrow import not_none
from paths import ROOT
from PIL import Image
from plans import WARDROBE, planned
from records import record
from rich.console import Console

from imgrec_lib import InputError, find_runs, list_models, open_run, train_run
from imgrec_lib.evaluation import PROTOCOLS
from imgrec_lib.files import write_json
from imgrec_lib.kernel_server import KERNEL
from imgrec_lib.matrix import Data, Matrix, driver, plan, read_matrix, rows, run_matrix, watch_matrix, with_roots
from imgrec_lib.matrix.facts import Facts, known_facts, read_facts
from imgrec_lib.matrix.tasks import SILENCE, Task, all_facts, winning
from imgrec_lib.matrix.view import Row, lines, remaining, render
from imgrec_lib.models.base import Range
from imgrec_lib.report import write_report
from imgrec_lib.runs import Validation
from imgrec_lib.search import Search, read_studies, space_of
from imgrec_lib.training import read_checkpoint

SMALL = {"n_users": 60, "n_items": 50, "image_size": 32}
GRID = {"bpr-mf": Search({"factors": [4, 8], "learning_rate": [0.01, 0.1]}, trials=None, sampler="grid")}
TWO = {"bpr-mf": Search({"factors": [4, 8]}, trials=None, sampler="grid")}


def is_kernel(process: psutil.Process) -> bool:
    return process.name() == KERNEL.decode() or "ipykernel_launcher" in " ".join(process.cmdline())


def pretend(task: Task, validation: float = 0.5, test: float = 0.5, ndcg: float = 0.5) -> None:
    """Leave what a finished run leaves, as far as a plan looks at it."""
    task.record("running")
    task.output.write_text("{}")
    metrics = {protocol: {"auc": test} for protocol in PROTOCOLS}
    validated = Validation(validation, 1, 1, metrics={"auc": validation, "ndcg@10": ndcg})
    write_json(task.folder / "run.json", record(validation=validated, metrics=metrics).to_json())
    task.record("done")


# The file.


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted((ROOT / "matrices").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_matrices_are_sound(path: Path, tmp_path: Path) -> None:
    matrix = read_matrix(path)
    made = planned(matrix, tmp_path)
    outputs = [task.output for task in made.tasks]
    assert len(set(outputs)) == len(outputs) and (made.trials or made.waiting)
    assert len(matrix.seeds) >= 3
    for notebook, chosen in matrix.compare.items():
        if "model" in chosen:
            assert chosen["model"] in {run.labels["model"] for runs in (made.trials, made.waiting) for run in runs}, (
                notebook
            )


def test_the_default_matrix_runs_every_model() -> None:
    matrix = read_matrix(ROOT / "matrices" / "default.yaml")
    assert {model for model, _ in matrix.profiles_of(matrix.models, Data())} == set(list_models())


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("datasett: wardrobe", "did you mean 'dataset'"),
        ("dataset: wardrob", "did you mean 'wardrobe'"),
        ("dataset_options: {n_user: 3}", "did you mean 'n_users'"),
        ("datasets: {a: {dataset: hm, rot: x}}", "did you mean 'root'"),
        ("datasets: {a: wardrobe}", "dataset 'a' of matrix .* must map names to values"),
        ("datasets: {a/b: {dataset: wardrobe}}", "call it otherwise"),
        ("datasets: {}", "names no dataset"),
        ("datasets: {a: {dataset: wardrobe}}\nroot: x", "both 'datasets' and 'root'"),
        ("device: cpu\ndevices: [cpu]", "both 'device' and 'devices'"),
        ("seeds: 3", "'seeds' of matrix .* must be list"),
        ("seeds: [a]", "'seeds' of matrix .* must be list of int"),
        ("seeds: []", "seeds is empty"),
        ("models: [bpr-fm]", "did you mean 'bpr-mf'"),
        ("models: [3]", "'models' of matrix .* must be list of str"),
        ("models: ['bpr-mf:papre']", "did you mean 'paper'"),
        ("models: [bpr-mf]\nprofiles: [code]", "'bpr-mf' has no profile of code: name one of its own"),
        ("models: [bpr-mf]\nparameters: {bpr-mf: {factor: 3}}", "did you mean 'factors'"),
        ("models: [bpr-mf]\nparameters: {bpr-mf: 3}", "'parameters' of matrix .* must be dict of str and dict"),
        ("parameters: {bprmf: {factors: 3}}", "did you mean 'bpr-mf'"),
        ("models: [bpr-mf]\ngrid: {bpr-mf: {factor: [3]}}", "did you mean 'factors'"),
        ("models: [bpr-mf]\ngrid: {bpr-mf: {factors: 3}}", "'factors' in the grid of bpr-mf in .* must be a list"),
        ("models: [bpr-mf]\ngrid: {bpr-mf: {factors: [3, x]}}", "'factors' of bpr-mf must be int"),
        ("models: [bpr-mf]\nsearch: {trial: 3}", "did you mean 'trials'"),
        ("models: [bpr-mf]\nsearch: {trials: 0}", "must be .*at least 1"),
        ("models: [bpr-mf]\nsearch: {sampler: gird}", "did you mean 'grid'"),
        ("models: [bpr-mf]\nsearch: {sampler: grid}", "'grid' tries every value: make 'learning_rate' a list"),
        ("models: [bpr-mf]\nsearch: {models: [bprmf]}", "did you mean 'bpr-mf'"),
        ("models: [poprank]\nsearch: {models: [poprank]}", "poprank, which has nothing to search"),
        ("models: [vbpr]\nsearch: {models: [vbpr], space: {bpr-mf: {factors: [3]}}}", "gives a space to bpr-mf, which"),
        ("models: [bpr-mf]\nsearch: {space: {bpr-mf: {factor: [3]}}}", "did you mean 'factors'"),
        (
            "models: [bpr-mf]\nsearch: {space: {bpr-mf: {l2: {low: 1}}}}",
            "'l2' in the space of bpr-mf .* must have 'low' and",
        ),
        (
            "models: [bpr-mf]\nsearch: {space: {bpr-mf: {l2: {low: 2, high: 1}}}}",
            "'l2' of bpr-mf must have 'low' below",
        ),
        ("models: [bpr-mf]\nsearch: {space: {bpr-mf: {l2: {low: 0, high: 1, log: true}}}}", "has no logarithm"),
        (
            "models: [bpr-mf]\nsearch: {space: {bpr-mf: {factors: {low: 0.5, high: 2}}}}",
            "'factors' of bpr-mf must be int",
        ),
        ("models: [bpr-mf]\nsearch: {}\ngrid: {bpr-mf: {factors: [3]}}", "both a grid and a search of bpr-mf"),
        ("models: [bpr-mf]\nablations: {bpr-mf: {l2: 0}}", "'ablations' of matrix .* must be dict of str and list"),
        ("models: [bpr-mf]\nablations: {bpr-mf: [{factor: 1}]}", "did you mean 'factors'"),
        ("runs_per_device: 0", "at least 1"),
        ("compare: [04_compar]", "did you mean '04_compare'"),
        ("compare: {04_compare: {run: x}}", "did you mean 'runs'"),
        ("- a", "must map names to values"),
        ("a: [", "is not YAML"),
        ("!!python/object/apply:os.system ['true']", "is not YAML"),
    ],
)
def test_a_bad_matrix_gets_a_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=sentence):
        read_matrix(path)


def test_short_and_long_forms_mean_the_same(tmp_path: Path) -> None:
    short, long = tmp_path / "short.yaml", tmp_path / "long.yaml"
    short.write_text(
        "dataset: hm\nroot: x\ndataset_options: {min_interactions: 3}\ndevice: cuda\ncompare: [04_compare]"
    )
    long.write_text(
        "datasets: {hm: {root: x, options: {min_interactions: 3}}}\ndevices: [cuda]\ncompare: {04_compare: {}}"
    )
    assert read_matrix(short) == read_matrix(long)
    assert read_matrix(short).datasets == {"hm": Data("hm", "x", {"min_interactions": 3})}


def test_numbers_with_an_exponent_are_numbers_and_what_looks_like_one_is_text(tmp_path: Path) -> None:
    written = tmp_path / "m.yaml"
    written.write_text(
        "models: [bpr-mf]\nparameters: {bpr-mf: {learning_rate: 1e-3}}\ngrid: {bpr-mf: {l2: [2E4, +.5e-1, 0]}}"
    )
    matrix = read_matrix(written)
    assert matrix.parameters == {"bpr-mf": {"learning_rate": 0.001}}
    assert matrix.search == {"bpr-mf": Search({"l2": [20000.0, 0.05, 0]}, trials=None, sampler="grid")}
    for text in ("1e", "e5", "1e5x", "0x1e-3z"):
        written.write_text(f"models: [bpr-mf]\nparameters: {{bpr-mf: {{learning_rate: {text}}}}}")
        with pytest.raises(InputError, match=f"must be float.*not '{text}'"):
            read_matrix(written)


def test_a_worker_says_how_it_ended(tmp_path: Path) -> None:
    place = driver._Place("cpu", 1, 1, lambda: ProcessPoolExecutor(1, get_context("spawn")))
    assert place.alone(os._exit, 3) == "its process ended with status 3"
    assert place.alone(os.kill, os.getpid(), 0) is None  # it was set up again
    place.stop()


def test_profiles_apply_to_the_models_that_have_them() -> None:
    matrix = Matrix(models=["bpr-mf", "pop-visrank", "jrl:code"], profiles=["default", "paper"])
    assert matrix.profiles_of(matrix.models, Data()) == [
        ("bpr-mf", "default"),
        ("bpr-mf", "paper"),
        ("pop-visrank", "default"),
        ("jrl", "code"),
    ]


def test_roots_by_name(tmp_path: Path) -> None:
    one, two = Matrix(datasets={"a": Data("hm")}), Matrix(datasets={"a": Data("hm"), "b": Data("hm")})
    assert with_roots(one, [str(tmp_path)]).datasets["a"].root == str(tmp_path)
    moved = with_roots(two, [f"b={tmp_path}"]).datasets
    assert (moved["a"].root, moved["b"].root) == ("", str(tmp_path))
    with pytest.raises(InputError, match="write NAME=PATH"):
        with_roots(two, [str(tmp_path)])
    with pytest.raises(InputError, match="unknown dataset of this matrix"):
        with_roots(two, ["c=x"])


# The plan.


def test_trials_are_models_times_profiles_times_seeds_on_each_dataset(tmp_path: Path) -> None:
    matrix = Matrix(
        datasets={"a": Data(options=SMALL), "b": Data()},
        models=["bpr-mf", "visrank"],
        profiles=["default", "paper"],
        seeds=[0, 3],
        controls=["visrank"],
        ablations={"bpr-mf": [{"l2": 0.0}]},
    )
    made = planned(matrix, tmp_path)
    # A dataset has bpr-mf and its ablation, visrank and its control, each in two profiles and with two seeds.
    assert len(made.trials) == 2 * (2 + 2) * 2 * 2 and not made.searches and not made.waiting
    assert {task.folder.parent for task in made.trials} == {tmp_path / "runs"}
    assert {task.folder.name for task in made.data} == {"a", "b"}
    ablated = [task for task in made.trials if "ablation" in task.labels]
    assert all(task.parameters["parameters"] == {"l2": 0.0} for task in ablated) and len(ablated) == 8
    assert [task.notebook for task in planned(replace(matrix, models=["poprank"], controls=[]), tmp_path).data] == [
        "01_data"
    ] * 2


def draw_all(matrix: Matrix, folder: Path) -> list[Task]:
    """Draw what a matrix's one search may draw; its configurations."""
    (search,) = planned(matrix, folder).searches
    assert search.left == search.study.search.most and not search.tasks
    for _ in range(search.left or 0):
        search.study.draw()
    (search,) = planned(matrix, folder).searches
    assert search.left == 0
    return search.tasks


def test_a_search_is_won_on_validation_and_the_trials_are_the_winners(tmp_path: Path) -> None:
    matrix = Matrix(models=["bpr-mf"], seeds=[5, 6], search=GRID, parameters={"bpr-mf": {"epochs": 3}})
    assert [row.detail for row in rows(planned(matrix, tmp_path), tmp_path) if row.stage == "search"] == ["to be drawn"]
    tasks = draw_all(matrix, tmp_path)
    made = planned(matrix, tmp_path)
    tried = [task.parameters["parameters"] for task in tasks]
    assert sorted((each["factors"], each["learning_rate"]) for each in tried) == [
        (4, 0.01),
        (4, 0.1),
        (8, 0.01),
        (8, 0.1),
    ]
    assert all(each == {"epochs": 3} | task.parameters["varied"] for each, task in zip(tried, tasks, strict=True))
    assert {task.folder.parent for task in tasks} == {tmp_path / "runs" / "search"}
    assert {task.parameters["seed"] for task in tasks} == {5} and not made.trials
    assert [each.labels["seed"] for each in made.waiting] == ["5", "6"]
    # The best on the test items has the worst validation, and the last one failed.
    for task, validation, test in zip(tasks[:3], (0.6, 0.8, 0.8), (0.9, 0.1, 0.2), strict=True):
        pretend(task, validation, test)
    assert planned(matrix, tmp_path).waiting
    tasks[3].record("failed", "no luck")
    decided = planned(matrix, tmp_path)
    assert not decided.waiting
    for task, seed in zip(decided.trials, (5, 6), strict=True):
        assert task.parameters["searched"] == tasks[1].parameters["varied"]
        assert task.parameters["parameters"] == {"epochs": 3} | tasks[1].parameters["varied"]
        assert task.parameters["seed"] == seed and task.notebook == "03_train"
    # A larger budget, or another metric, of the same search: the first goes on, the second is another.
    wider = {"bpr-mf": replace(GRID["bpr-mf"], space={"l2": [0.0, 0.1]})}
    assert [len(planned(replace(matrix, search=each), tmp_path).searches[0].tasks) for each in (GRID, wider)] == [4, 0]
    assert not planned(replace(matrix, choose_by="ndcg@10"), tmp_path).searches[0].tasks


def test_a_search_of_failures_has_no_winner(tmp_path: Path) -> None:
    matrix = Matrix(models=["bpr-mf"], search=GRID)
    for task in draw_all(matrix, tmp_path):
        task.record("failed", "no luck")
    made = planned(matrix, tmp_path)
    assert not made.trials and "all 4 runs of its search failed" in made.waiting[0].problem
    assert {row.state for row in rows(made, tmp_path / "runs") if row.stage == "trial"} == {"failed"}
    assert winning(made.searches[0])[0] is None


def test_a_run_that_was_ended_early_does_not_win(tmp_path: Path) -> None:
    matrix = Matrix(models=["bpr-mf"], seeds=[0], search=GRID)
    tasks = draw_all(matrix, tmp_path)
    for task, validation in zip(tasks, (0.6, 0.9, 0.7, 0.5), strict=True):
        pretend(task, validation)
    path = tasks[1].folder / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"pruned": True}))
    (trial,) = planned(matrix, tmp_path).trials
    assert trial.parameters["searched"] == tasks[2].parameters["varied"]


def test_minutes_are_a_budget_of_what_has_ended(tmp_path: Path) -> None:
    search = Search(space_of("bpr-mf"), trials=None, minutes=2.0)
    matrix = Matrix(models=["bpr-mf"], search={"bpr-mf": search})
    for seconds in (70.0, 49.0, 2.0):
        (before,) = planned(matrix, tmp_path).searches
        assert before.left is None
        before.study.draw()
        pretend(planned(matrix, tmp_path).searches[0].tasks[-1])
        path = planned(matrix, tmp_path).searches[0].tasks[-1].status_path
        path.write_text(json.dumps(json.loads(path.read_text()) | {"seconds": seconds}))
    assert planned(matrix, tmp_path).searches[0].left == 0


def test_every_model_that_has_a_space_gets_the_same_budget(tmp_path: Path) -> None:
    written = tmp_path / "m.yaml"
    written.write_text("models: [poprank, bpr-mf, vbpr, 'vbpr:paper', visrank]\nsearch: {trials: 7, pruner: median}")
    matrix = read_matrix(written)
    assert matrix.search == {
        name: Search(space_of(name), trials=7, pruner="median") for name in ("bpr-mf", "vbpr", "visrank")
    }
    searched = [
        (each.labels["model"], each.labels["profile"], each.left) for each in planned(matrix, tmp_path).searches
    ]
    # VisRank's four configurations are fewer than seven; settings of a paper are not searched by default.
    assert searched == [("bpr-mf", "default", 7), ("vbpr", "default", 7), ("visrank", "default", 4)]
    written.write_text(
        "models: ['vbpr:paper']\nsearch: {minutes: 3, space: {vbpr: {l2: {low: 1e-3, high: 10, log: true}}}}"
    )
    matrix = read_matrix(written)
    assert matrix.search == {"vbpr": Search({"l2": Range(0.001, 10, True)}, trials=None, minutes=3.0)}
    assert len(planned(matrix, tmp_path).searches) == 1


def test_an_address_follows_data_and_parameters_but_not_where_the_data_lies(tmp_path: Path) -> None:
    def address(matrix: Matrix, facts: Facts = WARDROBE["wardrobe"]) -> str:
        (task,) = plan(matrix, tmp_path, tmp_path, {"d": facts}).trials
        return task.address

    base = Matrix(datasets={"d": Data("hm", "x")}, models=["imgrec-ft"], seeds=[0])
    assert address(base) == address(replace(base, datasets={"d": Data("hm", "y")}))
    weights = tmp_path / "weights.pt"
    weights.write_bytes(b"1")
    others = [
        address(base, Facts("4567", True)),
        address(replace(base, seeds=[1])),
        address(replace(base, devices=["cuda"])),
        address(replace(base, parameters={"imgrec-ft": {"factors": 3}})),
        address(replace(base, weights=str(weights))),
    ]
    weights.write_bytes(b"2")
    others.append(address(replace(base, weights=str(weights))))
    assert len({address(base), *others}) == 7
    assert address(replace(base, devices=["cuda:0"])) == address(replace(base, devices=["cuda:1", "cuda:2"]))


def test_states(tmp_path: Path) -> None:
    matrix = Matrix(models=["poprank"], seeds=[0])
    (task,) = planned(matrix, tmp_path).trials
    assert task.state == "to do"
    task.record("running")
    assert task.state == "running"
    long_ago = time.time() - 2 * SILENCE
    os.utime(task.status_path, (long_ago, long_ago))
    assert task.state == "interrupted"
    task.sign_of_life()
    assert task.state == "running"
    pretend(task)
    assert task.state == "done"
    assert replace(task, address="another").state == "stale"
    task.record("failed", "no luck")
    assert task.state == "failed" and task.status is not None and task.status.error == "no luck"
    task.forget()
    assert task.state == "to do" and list(task.folder.iterdir()) == []
    (task.folder / "run.json").write_text("{}")  # of a version that kept no status
    assert task.state == "stale"


def test_a_stale_notebook_says_what_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = tmp_path / "weights.pt"
    weights.write_bytes(b"one")
    matrix = Matrix(models=["vbpr"], seeds=[0], weights=str(weights))

    def detail(**changed: Any) -> str:
        facts = {"wardrobe": changed.pop("facts", WARDROBE["wardrobe"])}
        made = plan(replace(matrix, **changed), tmp_path / "runs", tmp_path / "reports", facts)
        return "; ".join(dict.fromkeys(f"{r.state}: {r.detail}" for r in rows(made, tmp_path) if r.stage == "trial"))

    (task,) = planned(matrix, tmp_path).trials
    pretend(task)
    assert detail() == "done: "
    assert detail(facts=Facts("4567", True)) == "stale: changed: the data"
    assert detail(facts=None) == "stale: changed: the data, or they were not read yet"
    weights.write_bytes(b"two")
    assert detail() == "stale: changed: a file that its parameters name"
    weights.write_bytes(b"one")
    with monkeypatch.context() as patch:
        patch.setattr("imgrec_lib.matrix.tasks.run_fingerprint", lambda model: "edited")
        assert detail(facts=Facts("4567", True)) == "stale: changed: the data, code that makes its numbers"
    with monkeypatch.context() as patch:
        patch.setattr("imgrec_lib.notebooks.version", lambda name: "9.9")
        patch.setattr("imgrec_lib.notebooks._code", lambda path: ["another"])
        assert detail() == "stale: changed: the notebook, the version of imgrec"
    without = json.loads(task.status_path.read_text()) | {"parts": None, "address": "of an earlier version"}
    task.status_path.write_text(json.dumps(without))
    assert detail() == "stale: "
    task.status_path.unlink()
    assert detail() == "stale: not made by this matrix"


def test_only_some_runs(tmp_path: Path) -> None:
    matrix = Matrix(models=["poprank", "bpr-mf"], seeds=[0, 1], search=GRID)
    assert len(planned(matrix, tmp_path, {"model": ["poprank"]}).runs) == 2
    some = planned(matrix, tmp_path, {"model": ["bpr-mf", "poprank"], "seed": ["1"]})
    assert [task.labels["seed"] for task in some.trials] == ["1"] and len(some.searches) == 1 and len(some.waiting) == 1
    assert not some.comparisons
    for only, sentence in [
        ({"modell": ["x"]}, "did you mean 'model'"),
        ({"model": ["bpr"]}, "did you mean 'bpr-mf'"),
        ({"seed": ["7"]}, "unknown seed of this matrix"),
        ({"model": ["poprank"], "stage": ["search"]}, "no run of this matrix fits"),
    ]:
        with pytest.raises(InputError, match=sentence):
            planned(matrix, tmp_path, only)


def test_comparisons_follow_the_finished_trials(tmp_path: Path) -> None:
    matrix = Matrix(models=["poprank"], seeds=[0, 1])
    made = planned(matrix, tmp_path)
    assert not made.comparisons
    pretend(made.trials[0])
    one = planned(matrix, tmp_path).comparisons
    pretend(made.trials[1])
    two = planned(matrix, tmp_path).comparisons
    assert [len(task.parameters["only"]) for task in (*one, *two)] == [1, 1, 2, 2]
    assert all(a.address != b.address for a, b in zip(one, two, strict=True))


def test_data_is_read_again_only_when_it_changed(tmp_path: Path) -> None:
    pairs = [f"u{u},i{(u + k) % 9},{u * 10 + k}" for u in range(12) for k in range(5)]
    table = tmp_path / "shop" / "interactions.csv"
    table.parent.mkdir()
    table.write_text("\n".join(["user,item,timestamp", *pairs]) + "\n")
    data = Data("table", str(table.parent))
    runs = tmp_path / "runs"
    assert known_facts(data, runs) is None
    facts = read_facts(data, runs)
    assert known_facts(data, runs) == facts and not facts.pictures
    os.utime(table, (1, 1))  # touched: it must be looked at again, and is the same
    assert known_facts(data, runs) is None
    assert read_facts(data, runs) == facts == known_facts(data, runs)
    table.write_text("\n".join(["user,item,timestamp", *pairs, "u0,i8,99"]) + "\n")
    assert known_facts(data, runs) is None
    assert read_facts(data, runs).fingerprint != facts.fingerprint


# What people see.


def test_what_is_left_is_told_from_history(tmp_path: Path) -> None:
    matrix = Matrix(models=["poprank", "bpr-mf"], seeds=[0, 1, 2])
    made = planned(matrix, tmp_path)
    for task, seconds in zip(made.trials[:2], (10.0, 30.0), strict=True):
        pretend(task)
        status = json.loads(task.status_path.read_text())
        task.status_path.write_text(json.dumps(status | {"seconds": seconds}))
    made.trials[3].record("failed", "the loss became nan")
    table = rows(planned(matrix, tmp_path), tmp_path / "runs")
    assert [row.state for row in table if row.stage == "trial"] == ["done", "done", "to do", "failed", "to do", "to do"]
    # One run of poprank, the mean of 10 and 30 seconds, and two of bpr-mf, which are taken to last as long.
    assert remaining(table, 2) == (30.0, ["bpr-mf on wardrobe"])
    text = "\n".join(lines(table, 2))
    assert "failed" in text and "wardrobe bpr-mf seed 0: the loss became nan" in text
    assert (
        "3 runs left: about 30 s (2 of them guessed from other models)" in text
        and "nothing is known yet of: bpr-mf on wardrobe" in text
    )


def test_the_view_shows_what_runs_first_and_fits_the_screen() -> None:
    labels = {"dataset": "wardrobe", "model": "bpr-mf", "profile": "default"}
    table = [Row("trial", labels | {"seed": str(seed)}, "done", seconds=61.0) for seed in range(30)]
    table.append(Row("trial", labels | {"seed": "30"}, "running", "epoch 3 of 9", 5.0, 65.0))
    console = Console(width=120, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(render(table, 1, height=10))
    text = console.export_text()
    assert "31 notebooks: 30 done, 1 running, 1 run left: about 1 min 00 s" in text and "and 21 more" in text
    assert text.index("epoch 3 of 9") < text.index("seed 0 ") and "1 min 01 s" in text


def test_several_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert driver._devices(Matrix(devices=["cuda"]), None) == ["cuda:0", "cuda:1"]
    assert driver._devices(Matrix(devices=["cuda"], runs_per_device=2), 3) == ["cuda:0", "cuda:1", "cuda:0"]
    assert driver._devices(Matrix(devices=["cuda:1"]), None) == ["cuda:1"]
    assert driver._devices(Matrix(), 3) == ["cpu"] * 3
    for devices, sentence in [
        (["cuda:2"], "not there: this machine shows 2 GPUs"),
        (["cpu", "cuda"], "keep one kind"),
        (["gpu"], "'cpu', 'cuda' or a single GPU"),
    ]:
        with pytest.raises(InputError, match=sentence):
            driver._devices(Matrix(devices=devices), None)


# Real runs, on a small wardrobe.


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared, so that the small wardrobe is prepared once."""
    return tmp_path_factory.mktemp("reports")


def small(**settings: Any) -> Matrix:
    return Matrix(**{"datasets": {"wardrobe": Data(options=SMALL)}, "compare": {}, **settings})


def test_a_matrix_chooses_by_the_metric_that_it_names(tmp_path: Path) -> None:
    """Every trained model is told; the winner of a search is the best by that metric, whatever its AUC."""
    matrix = small(
        models=["poprank", "bpr-mf"], seeds=[0, 1], choose_by="ndcg@10", search=TWO,
        parameters={"bpr-mf": {"epochs": 1}},
    )  # fmt: skip
    for _ in range(2):
        planned(matrix, tmp_path).searches[0].study.draw()
    made = planned(matrix, tmp_path)
    (search,) = made.searches
    assert {task.parameters["parameters"]["choose_by"] for task in search.tasks} == {"ndcg@10"}
    assert {task.labels["model"]: task.parameters["parameters"] for task in made.trials} == {"poprank": {}}
    for task, (auc, ndcg) in zip(search.tasks, [(0.9, 0.1), (0.8, 0.2)], strict=True):
        pretend(task, auc, ndcg=ndcg)
    by_auc = replace(search, study=replace(search.study, choose_by="auc"))
    assert winning(search)[0] is search.tasks[1] and winning(by_auc)[0] is search.tasks[0]
    trials = [t for t in planned(matrix, tmp_path).trials if t.labels["model"] == "bpr-mf"]
    assert [t.parameters["searched"] for t in trials] == [search.tasks[1].parameters["varied"]] * 2
    written = tmp_path / "m.yaml"
    written.write_text("models: [bpr-mf]\nchoose_by: ndgc@10\n")
    with pytest.raises(InputError, match="ndgc@10"):
        read_matrix(written)


@pytest.mark.slow
def test_a_matrix_runs_once_and_a_failing_run_stops_nothing(
    tmp_path: Path, reports: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = tmp_path / "runs"
    # WARP fails: with this learning rate its loss stops being finite.
    matrix = small(
        models=["poprank", "bpr-mf", "warp"],
        seeds=[0],
        parameters={"bpr-mf": {"epochs": 1}, "warp": {"learning_rate": 1e38, "epochs": 2}},
        search=TWO,
        compare={"04_compare": {}},
    )
    table = run_matrix(matrix, runs, reports, workers=2, progress=False)
    (failed,) = [row for row in table if row.state == "failed"]
    assert failed.labels["model"] == "warp" and "learning rate" in failed.detail
    assert {row.state for row in table} == {"done", "failed"}
    poprank, bprmf = find_runs(runs)
    assert (poprank.record.model, bprmf.record.model) == ("poprank", "bpr-mf")
    # The search saw no test item, and the trial is of its winner.
    search = find_runs(runs, stage="search")
    assert len(search) == 2
    for run in search:
        assert run.metrics == {} and run.record.oracle is None and run.record.stage == "search"
        assert not (run.folder / "per_user.parquet").exists() and not (run.folder / "model.safetensors").exists()
    (study,) = read_studies(next((runs / "search").glob("*.journal")))
    told = study.table()
    assert told["state"].tolist() == ["done"] * 2
    assert sorted(told["value"]) == sorted(not_none(run.record.validation.auc) for run in search)
    best = max(search, key=lambda run: not_none(run.record.validation.auc))
    assert bprmf.request.searched == best.request.varied
    assert "2 configurations by validation AUC" in (bprmf.folder / "notebook.ipynb").read_text(encoding="utf-8")
    assert "Nothing was searched" in (poprank.folder / "notebook.ipynb").read_text(encoding="utf-8")
    assert bprmf.record.parameters["factors"] == best.record.parameters["factors"]
    # Again: nothing is repeated, and what failed is reported and left alone.
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    again = run_matrix(matrix, runs, reports, workers=2, progress=False)
    assert [row.state for row in again] == [row.state for row in table]
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    watched = tmp_path / "matrix.yaml"
    content = {key: value for key, value in vars(matrix).items() if key not in ("datasets", "search")}
    content |= {"grid": {"bpr-mf": {"factors": [4, 8]}}, "dataset": "wardrobe", "dataset_options": SMALL}
    watched.write_text(yaml.safe_dump(content))
    watch_matrix(watched, runs, reports)  # returns: nothing is left to do
    monkeypatch.setenv("IMGREC_CACHE", str(tmp_path / "another"))
    assert [row.state for row in rows(plan(matrix, runs, reports), runs)] == [row.state for row in table]


def interrupted(matrix: Matrix, runs: Path, reports: Path, tmp_path: Path, number: int) -> tuple[Path, pd.DataFrame]:
    """Run a matrix in a process of its own, and send it a signal once its run has saved its first epoch.

    Returns the run's folder and the curve so far; asserts that no process is left.
    """
    script = tmp_path / "drive.py"
    script.write_text(
        "import pickle, sys\n"
        "from pathlib import Path\n"
        "from imgrec_lib.matrix import run_matrix\n"
        "if __name__ == '__main__':\n"
        "    run_matrix(*pickle.loads(Path(sys.argv[1]).read_bytes()))\n"
    )
    arguments = tmp_path / "arguments"
    arguments.write_bytes(pickle.dumps((matrix, runs, reports)))
    (task,) = plan(matrix, runs, reports).trials
    checkpoint = task.folder / "training.safetensors"
    process = psutil.Popen([sys.executable, str(script), str(arguments)])
    while not checkpoint.exists():
        assert process.poll() is None
        time.sleep(0.05)
    family = process.children(recursive=True)
    assert any(is_kernel(each) for each in family)
    process.send_signal(number)
    _, alive = psutil.wait_procs([process, *family], timeout=20)
    assert not alive, [each.cmdline() for each in alive]
    return task.folder, pd.DataFrame(read_checkpoint(checkpoint).progress["curve"])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_killed_driver_leaves_no_process_and_its_run_goes_on(tmp_path: Path, reports: Path) -> None:
    runs = tmp_path / "runs"
    settings = {"epochs": 150, "patience": 0, "learning_rate": 1e-3}
    matrix = small(models=["bpr-mf"], seeds=[0], parameters={"bpr-mf": settings})
    folder, before = interrupted(matrix, runs, reports, tmp_path, signal.SIGKILL)
    assert not (folder / "run.json").exists() and 1 < len(before) < 150
    assert all(row.state == "done" for row in run_matrix(matrix, runs, reports, progress=False))
    run = open_run(folder)
    # It went on: the first epochs are those of the process that was killed, to the microsecond.
    assert run.curve["seconds"].head(len(before)).tolist() == before["seconds"].tolist()
    dataset, _ = run.request.load(progress=False)
    undisturbed = train_run(dataset, "bpr-mf", tmp_path / "undisturbed", parameters=settings, progress=False)
    assert undisturbed.metrics == run.metrics and len(run.curve) == 151
    columns = ["epoch", "loss", "validation_auc"]
    pd.testing.assert_frame_equal(run.curve[columns], undisturbed.curve[columns])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM")
def test_a_terminated_driver_says_what_it_interrupted(tmp_path: Path, reports: Path) -> None:
    runs = tmp_path / "runs"
    matrix = small(models=["bpr-mf"], seeds=[0], parameters={"bpr-mf": {"epochs": 10**6, "patience": 0}})
    interrupted(matrix, runs, reports, tmp_path, signal.SIGTERM)
    (task,) = plan(matrix, runs, reports).trials
    assert task.state == "interrupted"


@pytest.mark.slow
def test_a_killed_worker_fails_its_own_run_alone(tmp_path: Path, reports: Path) -> None:
    runs = tmp_path / "runs"
    endless = {"epochs": 10**6, "patience": 0}
    matrix = small(models=["bpr-mf", "poprank"], seeds=[0], parameters={"bpr-mf": endless})
    task, _ = plan(matrix, runs, reports).trials
    left: list[psutil.Process] = []
    ended = threading.Event()

    def kill_the_worker() -> None:
        while not (task.folder / "training.safetensors").exists():
            if ended.wait(0.05):
                return  # the run failed before it had saved an epoch
        family = [
            each
            for worker in psutil.Process().children()
            for each in worker.children(recursive=True)
            if any(map(is_kernel, [each, *each.children()]))
        ]
        (worker,) = {p.parent() for p in family if p.parent() not in family}
        worker.kill()
        _, alive = psutil.wait_procs(family, timeout=20)
        left.extend(alive)

    killer = threading.Thread(target=kill_the_worker)
    killer.start()
    table = run_matrix(matrix, runs, reports, workers=1, progress=False)
    ended.set()
    killer.join()
    assert not left
    states = {row.labels["model"]: (row.state, row.detail) for row in table if row.stage == "trial"}
    assert states["poprank"] == ("done", "")
    assert states["bpr-mf"][0] == "failed" and "its process was killed" in states["bpr-mf"][1]
    # It is left alone until told otherwise, and could go on from its checkpoint.
    assert plan(matrix, runs, reports).trials[0].state == "failed"
    assert (task.folder / "training.safetensors").exists()


def test_two_drivers_do_not_share_a_folder(tmp_path: Path, reports: Path) -> None:
    from filelock import FileLock

    with FileLock(tmp_path / ".driver.lock"), pytest.raises(InputError, match="another 'imgrec run' is at work"):
        run_matrix(small(models=["poprank"], seeds=[0]), tmp_path, reports, progress=False)


@pytest.mark.slow
def test_a_dataset_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    matrix = Matrix(datasets={"shop": Data("table", str(tmp_path / "nowhere"))}, models=["poprank"], seeds=[0])
    table = run_matrix(matrix, tmp_path / "runs", tmp_path / "reports", workers=1, progress=False)
    assert [(row.state, row.stage) for row in table] == [("failed", "data"), ("to do", "trial")]
    assert "nowhere" in table[0].detail


@pytest.mark.slow
def test_models_without_pictures_prepare_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a catalogue with photographs, people are shown some; no network is to see them, and so none is stored."""
    monkeypatch.setenv("IMGREC_CACHE", str(tmp_path / "cache"))
    pairs = [f"u{u},i{(u * k) % 11}" for u in range(1, 13) for k in range(1, 6)]
    (tmp_path / "shop" / "images").mkdir(parents=True)
    (tmp_path / "shop" / "interactions.csv").write_text("\n".join(["user,item", *pairs]) + "\n")
    for item in range(11):
        Image.new("RGB", (20, 30), (20 * item, 0, 0)).save(tmp_path / "shop" / "images" / f"i{item}.png")
    shop = {"shop": Data("table", str(tmp_path / "shop"), {"min_interactions": 3})}
    matrix = Matrix(datasets=shop, models=["bpr-mf"], seeds=[0], compare={"05_neighbours": {}})
    assert not matrix.sees_pictures(shop["shop"])
    seeing = replace(matrix, models=["bpr-mf", "vbpr"])
    assert seeing.sees_pictures(shop["shop"])
    assert not replace(seeing, features={"words": "text"}).sees_pictures(shop["shop"])
    runs, reports = tmp_path / "runs", tmp_path / "reports"
    table = run_matrix(matrix, runs, reports, workers=1, progress=False)
    assert {row.state for row in table} == {"done"}, [row.detail for row in table]
    write_report(runs, reports, progress=False)
    shown = [reports / "index.html", reports / "01_data.ipynb", reports / "05_neighbours.ipynb"]
    assert all("data:image/jpeg" in path.read_text(encoding="utf-8") for path in shown)
    assert not list((tmp_path / "cache").glob("images/*/pixels.npy"))
    assert all(facts is None for facts in all_facts(seeing, runs).values())  # with them another dataset is read


@pytest.mark.slow
def test_dask_runs_what_local_processes_run(tmp_path: Path, reports: Path) -> None:
    distributed = pytest.importorskip("distributed", reason="Dask is an extra: pip install imgrec[dask]")
    matrix = small(models=["poprank"], seeds=[0, 1])
    with distributed.LocalCluster(
        n_workers=1,
        threads_per_worker=1,
        processes=True,
        dashboard_address=None,
        local_directory=str(tmp_path / "dask"),
    ) as cluster:
        table = run_matrix(matrix, tmp_path / "runs", reports, dask=cluster.scheduler_address, progress=False)
    assert {row.state for row in table} == {"done"}
    assert len(find_runs(tmp_path / "runs")) == 2


def test_dask_needs_a_scheduler_and_workers_of_one_thread(tmp_path: Path, reports: Path) -> None:
    distributed = pytest.importorskip("distributed", reason="Dask is an extra: pip install imgrec[dask]")
    matrix = small(models=["poprank"], seeds=[0])
    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None) as cluster,
        pytest.raises(InputError, match="--nthreads 1"),
    ):
        run_matrix(matrix, tmp_path / "runs", reports, dask=cluster.scheduler_address, progress=False)
