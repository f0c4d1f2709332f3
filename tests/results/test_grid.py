"""What a grid saw, against run records written by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.container import ErrorbarContainer
from records import write_run
from toy import planted_dataset

from imgrec_lib.data.dataset import Dataset
from imgrec_lib.figures.grid import validation_surface
from imgrec_lib.results import Results
from imgrec_lib.results.tables import search_table
from imgrec_lib.runs import Run, Validation, find_runs


@pytest.fixture(scope="module")
def shop() -> Dataset:
    return planted_dataset(n_users=30, n_items=40)[0]


def tried(folder: Path, shop: Dataset, name: str, auc: float, seed: int = 0, rate: float = 0.1, **values: Any) -> Run:
    return write_run(
        folder / f"{name}-{seed}", shop, "bpr-mf", seed, stage="search", metrics={}, parameters=values,
        phases=[{"learning_rate": rate}], validation=Validation(auc, 1, 1),
    )  # fmt: skip


def test_configurations_by_validation_auc_averaged_over_seeds(shop: Dataset, tmp_path: Path) -> None:
    tried(tmp_path, shop, "a", 0.70, factors=4, l2=0.0)
    tried(tmp_path, shop, "a", 0.74, seed=1, factors=4, l2=0.0)
    tried(tmp_path, shop, "b", 0.73, factors=8, l2=0.0)
    write_run(tmp_path / "trial", shop, "bpr-mf")
    runs = [run for run in find_runs(tmp_path, stage=None) if not run.record.tested]
    assert len(runs) == 3
    table = search_table(Results.of(runs).rows)
    assert table.index.tolist() == ["1", "2"]
    assert table["factors", ""].tolist() == [8, 4] and table["trials", ""].tolist() == [1, 2]
    assert table["validation AUC", "mean"].tolist() == pytest.approx([0.73, 0.72])
    assert np.isnan(table["validation AUC", "sd"].iloc[0])
    assert table["validation AUC", "sd"].iloc[1] == pytest.approx(0.02 * 2**0.5)
    assert ("l2", "") not in table and ("learning rate", "") not in table  # they do not vary


def test_one_setting_is_a_line_in_order_of_size(shop: Dataset, tmp_path: Path) -> None:
    runs = [tried(tmp_path, shop, f"{rate}", auc, rate=rate) for rate, auc in ((0.1, 0.8), (0.001, 0.6), (0.01, 0.7))]
    figure = validation_surface(search_table(Results.of(runs).rows))
    assert figure is not None
    (axes,) = figure.axes
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0.001", "0.01", "0.1"]
    (bars,) = axes.containers
    assert isinstance(bars, ErrorbarContainer)
    np.testing.assert_allclose(np.array(bars.lines[0].get_ydata()).astype(float), [0.6, 0.7, 0.8])
    assert axes.get_xlabel() == "Learning rate"
    assert figure.alt == "Validation AUC by learning rate: 0.001 0.6000; 0.01 0.7000; 0.1 0.8000."


def test_two_settings_are_a_map_with_the_best_cell_named(shop: Dataset, tmp_path: Path) -> None:
    found = {(0.1, 4): 0.71, (0.1, 16): 0.75, (0.01, 4): 0.69, (0.01, 16): 0.72, (0.1, 8): 0.7}  # one cell is missing
    runs = [tried(tmp_path, shop, f"{rate}-{f}", auc, rate=rate, factors=f) for (rate, f), auc in found.items()]
    figure = validation_surface(search_table(Results.of(runs).rows))
    assert figure is not None
    (axes,) = figure.axes
    across, down = ([tick.get_text() for tick in ticks] for ticks in (axes.get_xticklabels(), axes.get_yticklabels()))
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("Factors", "Learning rate")
    assert across == ["4", "8", "16"] and down == ["0.01", "0.1"]
    drawn = {(float(down[round(t.get_position()[1])]), int(across[round(t.get_position()[0])])): t for t in axes.texts}
    assert {place: float(text.get_text().split()[0]) for place, text in drawn.items()} == found
    assert [place for place, text in drawn.items() if text.get_text().endswith("best")] == [(0.1, 16)]
    assert "best first: 16 and 0.1 0.7500;" in figure.alt


def test_three_settings_are_a_table_only(shop: Dataset, tmp_path: Path) -> None:
    runs = [
        tried(tmp_path, shop, f"{n}", 0.7 + n / 100, rate=0.1 * (1 + n % 2), factors=4 + n // 2, l2=float(n))
        for n in range(4)
    ]
    table = search_table(Results.of(runs).rows)
    assert {column[0] for column in table.columns if not column[1]} == {"factors", "l2", "learning rate", "trials"}
    assert validation_surface(table) is None
