"""The benchmarks' own parts: the generated data, the AUC that all sides share, and the arithmetic of the report."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from narrow import not_none
from paths import ROOT

from imgrec_lib import Dataset, load_dataset
from imgrec_lib.data import blocks, split
from imgrec_lib.evaluation import ValidationAUC
from imgrec_lib.models.base import InnerProduct, Recommender

FOLDER = ROOT / "benchmarks"
MODULES = ("common", "data", "shop", "write")


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


def test_a_drawn_shop_is_whole_and_both_its_forms_are_the_same_data(
    benchmarks: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        benchmarks.shop.write(tmp_path / name, 0.001)
    rows = pd.read_csv(tmp_path / "a/hm/transactions_train.csv", dtype=str)
    assert len(rows) == 31_788 and rows["t_dat"].is_monotonic_increasing
    assert (rows["customer_id"].nunique(), rows["article_id"].nunique()) == (1362, 106)
    assert rows.duplicated(["customer_id", "article_id"]).mean() > 0.1
    first, second = (tmp_path / name / "hm/transactions_train.csv" for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()

    def read(form: str) -> Dataset:
        reader, options = benchmarks.shop.READERS[form]
        found = load_dataset(reader, tmp_path / "a" / form, cache=tmp_path / "cache", progress=False, **options)
        assert found.n_items == 106
        return found

    whole = read("hm")
    for module in (blocks, split):  # so few rows a block that what is read lies in files
        monkeypatch.setattr(module, "BLOCK", 4000)
    parts = read("parquet")
    assert (whole.user_ids == parts.user_ids).all() and (whole.items["item"] == parts.items["item"]).all()
    for one, other in ((whole.train, parts.train), (whole.test, parts.test), (whole.validation, parts.validation)):
        assert (one.items == other.items).all() and np.array_equal(not_none(one.times), not_none(other.times))
    assert (whole.train.indptr == parts.train.indptr).all() and not isinstance(whole.train.items.base, np.memmap)
    assert isinstance(parts.train.items.base, np.memmap)


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
