"""The matrix: a plan that is done is not done again, a failing run stops nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from imgrec_lib import InputError, find_runs, list_models
from imgrec_lib.matrix import Matrix, plan, read_matrix, run_matrix

SMALL = {"n_users": 60, "n_items": 50, "image_size": 32}
ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("path", sorted((ROOT / "matrices").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_matrices_are_sound(path: Path, tmp_path) -> None:
    matrix = read_matrix(path)
    _, training, _ = plan(matrix, tmp_path / "runs", tmp_path / "reports")
    assert len({task.output for task in training}) == len(training) > 0
    assert len(matrix.seeds) >= 3


def test_the_default_matrix_runs_every_model() -> None:
    matrix = read_matrix(ROOT / "matrices" / "default.yaml")
    _, training, _ = plan(matrix, Path("runs"), Path("reports"))
    assert {task.parameters["model"] for task in training} == set(list_models())


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("datasett: wardrobe", "did you mean 'dataset'"),
        ("seeds: 3", "'seeds' of matrix .* must be list"),
        ("seeds: [a]", "seeds must be whole numbers"),
        ("models: [bpr-fm]", "did you mean 'bpr-mf'"),
        ("models: ['bpr-mf:papre']", "did you mean 'paper'"),
        ("models: [bpr-mf]\nparameters: {bpr-mf: {factor: 3}}", "did you mean 'factors'"),
        ("parameters: {bprmf: {factors: 3}}", "did you mean 'bpr-mf'"),
        ("- a", "must map names to values"),
        ("a: [", "is not YAML"),
        ("!!python/object/apply:os.system ['true']", "is not YAML"),
    ],
)
def test_a_bad_matrix_gets_a_sentence(tmp_path, text: str, sentence: str) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=sentence):
        read_matrix(path)


def test_a_matrix_runs_once_and_a_failing_run_stops_nothing(tmp_path) -> None:
    runs, reports = tmp_path / "runs", tmp_path / "reports"
    # WARP fails: with this learning rate its loss stops being finite.
    matrix = Matrix(
        dataset_options=SMALL,
        models=["poprank", "bpr-mf", "warp"],
        seeds=[0],
        parameters={"bpr-mf": {"epochs": 1}, "warp": {"learning_rate": 1e38, "epochs": 2}},
        feature_options={"size": 32},
        weights="random",
        compare=["04_compare"],
    )
    failures = run_matrix(matrix, runs, reports, workers=2, progress=False)
    assert len(failures) == 1 and "warp" in failures[0] and "learning rate" in failures[0], failures
    assert [run.record["model"] for run in find_runs(runs)] == ["poprank", "bpr-mf"]
    groups = plan(matrix, runs, reports)
    todo = [task for group in groups for task in group if not task.done]
    assert [task.parameters.get("model") for task in todo] == ["warp"]
    before = {path: path.stat().st_mtime_ns for path in runs.glob("*/notebook.ipynb")}
    assert len(run_matrix(matrix, runs, reports, workers=2, progress=False)) == 1
    assert before == {path: path.stat().st_mtime_ns for path in runs.glob("*/notebook.ipynb")}


def test_the_address_of_a_comparison_follows_its_runs(tmp_path) -> None:
    one = plan(Matrix(models=["poprank"], seeds=[0]), tmp_path, tmp_path)[2]
    two = plan(Matrix(models=["poprank"], seeds=[0, 1]), tmp_path, tmp_path)[2]
    assert all(a.address != b.address for a, b in zip(one, two, strict=True))
