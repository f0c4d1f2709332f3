"""The benchmarks' own parts: the generated data, the AUC that all sides share, and the arithmetic of the report."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from paths import ROOT

from imgrec_lib.evaluation import ValidationAUC
from imgrec_lib.models.base import InnerProduct, Recommender

FOLDER = ROOT / "benchmarks"
MODULES = ("common", "data", "write")


@pytest.fixture(scope="module")
def benchmarks() -> Iterator[SimpleNamespace]:
    """The modules of benchmarks/, which is no package: they are forgotten afterwards."""
    sys.path.insert(0, str(FOLDER))
    try:
        yield SimpleNamespace(**{name: __import__(name) for name in MODULES})
    finally:
        sys.path.remove(str(FOLDER))
        for name in MODULES:
            sys.modules.pop(name, None)


def test_the_generated_data_is_of_its_size_and_the_same_again(benchmarks: SimpleNamespace, tmp_path: Path) -> None:
    rung = benchmarks.data.Rung("tiny", 1 / 512)
    one, two = (benchmarks.data.prepare(rung, tmp_path / name) for name in ("a", "b"))
    assert one.train.shape == (rung.n_pairs, 2) and one.features.shape == (rung.n_items, 2048)
    assert one.features.dtype == np.float32 and float(one.features.min()) == 0
    assert (one.train == two.train).all() and (one.features == two.features).all()
    users = np.arange(rung.n_users)
    held = [np.stack([users, items], 1) for items in (one.validation, one.test)]
    everything = np.concatenate([one.train, *held])
    assert len(np.unique(everything, axis=0)) == len(everything)  # no pair twice, no held-out item in training
    assert (np.bincount(one.train[:, 0], minlength=rung.n_users) > 0).all()
    largest = benchmarks.data.RUNGS["1"]
    assert (largest.n_users, largest.n_items, largest.n_pairs) == (45_184, 166_270, 267_635)


class Fixed(Recommender):
    def __init__(self, users: np.ndarray, items: np.ndarray, offset: np.ndarray) -> None:
        super().__init__()
        self.parts = [torch.from_numpy(part) for part in (users, items, offset)]

    def scorer(self, times: torch.Tensor | None = None) -> InnerProduct:
        return InnerProduct.with_item_offset(*self.parts)


def test_the_auc_of_all_sides_is_the_library_s(benchmarks: SimpleNamespace, tmp_path: Path) -> None:
    files = benchmarks.data.prepare(benchmarks.data.Rung("tiny", 1 / 512), tmp_path)
    rng = np.random.default_rng(0)
    users, items, offset = (
        rng.integers(-2, 3, shape).astype(np.float32)  # small whole numbers: many ties
        for shape in ((files.n_users, 3), (files.n_items, 3), files.n_items)
    )
    expected = ValidationAUC(benchmarks.data.open_dataset(files))(Fixed(users, items, offset))
    assert benchmarks.common.validation_auc(files, users, items, offset) == pytest.approx(expected, abs=1e-12)


def test_when_a_curve_reaches_its_target(benchmarks: SimpleNamespace) -> None:
    points = [(0.0, 0.5), (2.0, 0.7), (3.0, 0.6), (4.0, 0.8)]
    assert benchmarks.write.reached(points, 0.6) == pytest.approx(1.0)
    assert benchmarks.write.reached(points, 0.75) == pytest.approx(3.75)
    assert benchmarks.write.reached(points, 0.9) == float("inf")
    assert benchmarks.write.exponent([1, 10, 100], [5, 1, 100]) == pytest.approx(2)


def test_a_failure_is_a_dash_in_the_tables_and_a_line_below(benchmarks: SimpleNamespace, tmp_path: Path) -> None:
    rungs = list(benchmarks.data.RUNGS.values())[:1]
    failed = {"failed": "not installed"}
    record: dict[str, Any] = {
        "group": "",
        "rung": "1/64",
        "round": 0,
        "name": "cornac-vbpr",
        "options": {"--batch": "256"},
    }
    mine = record | {"name": "vbpr-rate", "result": {"rate": 1234.0, "versions": {"torch": "2"}}}
    mine["options"] = record["options"] | {"--precision": "float32"}
    options = SimpleNamespace(threads=1, device="cpu", plot=tmp_path / "plot.png", out=tmp_path / "report.md")
    benchmarks.write.write_report([record | {"result": failed}, mine], rungs, options, [0.0, 1.0], 60.0)
    text = options.out.read_text()
    assert "| 1/64 | 256 | - | float32 | 1,234 | - |" in text
    assert "- cornac-vbpr: not installed" in text and "torch 2" in text
