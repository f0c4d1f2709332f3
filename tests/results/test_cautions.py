"""What a report may not claim: rows whose settings were not searched on this data, best epochs at the edge of a
training, runs in which nobody can be ranked; and what is chosen by other metrics than AUC."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from records import with_cold_items, write_run
from toy import planted_dataset

from imgrec_lib import train_run
from imgrec_lib.data.dataset import Columns, Dataset, HeldOut, Interactions
from imgrec_lib.figures import (
    auc_by_popularity,
    cost_vs_quality,
    difference_matrix,
    learning_curves,
    sampled_vs_exact,
)
from imgrec_lib.figures.curves import kept_epoch
from imgrec_lib.files import write_json
from imgrec_lib.report import format_table, write_report
from imgrec_lib.results import (
    Results,
    auc_table,
    cold_table,
    comparison_note,
    difference_table,
    lists_table,
    metrics_table,
    popularity_table,
    results_table,
    search_table,
)
from imgrec_lib.results.tables import cautions, searches
from imgrec_lib.runs import Run, Validation, find_runs, open_run


@pytest.fixture(scope="module")
def shop() -> Dataset:
    return with_cold_items(planted_dataset(n_users=60, n_items=70)[0])


def cell(table: pd.DataFrame, row: str, heading: str, statistic: str = "mean") -> Any:
    return table[heading, statistic].to_dict()[row]


def headings(table: pd.DataFrame, statistic: str = "mean") -> list[str]:
    return [str(column[0]) for column in table.columns.tolist() if column[1] == statistic]


def ahead(run: Run) -> Run:
    """The run as if its model had ranked every test item first."""
    users = pd.read_parquet(run.folder / "per_user.parquet")
    users["exact/higher"], users["exact/tied"] = 0, 0
    users.to_parquet(run.folder / "per_user.parquet", index=False)
    return open_run(run.folder)


def test_no_difference_with_settings_of_other_data_bears_a_star(shop: Dataset, tmp_path: Path) -> None:
    best = ahead(write_run(tmp_path / "best", shop, "vbpr"))
    weak = write_run(tmp_path / "weak", shop, "bpr-mf")
    default = write_run(tmp_path / "default", shop, "fm-id", requested={})
    rule = write_run(tmp_path / "rule", shop, "poprank", popularity=True, epochs=0, parameters={}, requested={})
    results = Results.of([best, weak, default, rule])
    comparison = results.comparison
    assert comparison is not None and comparison.best == "VBPR"
    assert comparison.unsearched == {"FM-ID"}  # a rule without settings has nothing to search
    table = results_table(results)
    assert table["settings", ""].dropna().to_dict() == {
        "BPR-MF": "searched", "FM-ID": "not searched", "VBPR": "searched",
    }  # fmt: skip
    assert "| PopRank | 1 |" in format_table(table)
    held = table["AUC against VBPR", "holds"].to_dict()
    assert held == {"PopRank": True, "BPR-MF": True, "FM-ID": False, "VBPR": False}
    assert cell(table, "FM-ID", "AUC against VBPR", "difference") < -0.3  # shown, but not as a finding
    pairs = difference_table(comparison)
    assert not pairs["AUC difference", "holds"][["FM-ID" in pair for pair in pairs.index]].any()
    assert cell(pairs, "VBPR less BPR-MF", "AUC difference", "holds")
    figure = difference_matrix(comparison)
    assert "Settings not searched on this data: FM-ID." in figure.alt and "VBPR and FM-ID" in figure.alt
    assert "not searched on this data" in comparison_note(comparison)
    assert cautions(results)[0] == "Settings not searched on this data: FM-ID."
    everything = Results.of([best, weak])
    assert everything.comparison is not None and "not searched" not in comparison_note(everything.comparison)
    assert not any("Settings" in sentence for sentence in cautions(everything))


def test_a_row_is_searched_only_if_all_its_trials_are(shop: Dataset, tmp_path: Path) -> None:
    found = [write_run(tmp_path / "a", shop), write_run(tmp_path / "b", shop, seed=1, requested={})]
    (row,) = Results.of(found).rows
    assert row.unsearched


def test_the_report_says_what_was_searched_and_marks_what_was_not(shop: Dataset, tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "a", shop, "bpr-mf")
    write_run(tmp_path / "runs" / "b", shop, "vbpr", requested={})
    for factors in (2, 4, 8):
        write_run(
            tmp_path / "runs" / f"grid-{factors}", shop, "bpr-mf", stage="search", metrics={}, requested={},
            parameters={"factors": factors},
        )  # fmt: skip
    page = write_report(tmp_path / "runs", tmp_path / "out", progress=False, markdown=tmp_path / "all.md").read_text()
    text = (tmp_path / "all.md").read_text()
    for where in (page, text):
        assert "Settings not searched on this data: VBPR." in where
        assert "Searched on this data, by validation AUC: 3 configurations of BPR-MF." in where
    tried = Results.of(run for run in find_runs(tmp_path / "runs", stage="search"))
    assert searches(tried) == "Searched on this data, by validation AUC: 3 configurations of BPR-MF."


@pytest.mark.parametrize(
    ("epoch", "of", "restore", "words"),
    [
        (3, 9, "best", "among the first three"),
        (0, 9, "best", "among the first three"),
        (9, 9, "best", "is the last"),
        (4, 9, "best", None),
        (9, 9, "last", None),  # nothing was chosen
    ],
)
def test_a_best_epoch_at_the_edge_is_said(
    shop: Dataset, tmp_path: Path, epoch: int, of: int, restore: str, words: str | None
) -> None:
    run = write_run(
        tmp_path / "run", shop, epochs=of, validation=Validation(0.7, 1, epoch), phases=[{"restore": restore}]
    )
    found = [sentence for sentence in cautions(Results.of([run])) if "epoch" in sentence]
    assert (found == []) if words is None else (words in found[0] and found[0].endswith(": BPR-MF."))
    assert kept_epoch(run) == epoch


def test_in_a_later_phase_epochs_are_counted_anew(shop: Dataset, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", shop, validation=Validation(0.8, 2, 5), phases=[{}, {}])
    curve = pd.DataFrame(
        {"phase": [1] * 5 + [2] * 6, "epoch": [*range(5), *range(6)], "validation_auc": np.linspace(0.5, 0.8, 11)}
    )
    curve.to_csv(run.folder / "curve.csv", index=False)
    run = open_run(run.folder)
    assert kept_epoch(run) == 4 + 5
    assert cautions(Results.of([run])) == ["The best epoch is the last (more epochs may help): BPR-MF."]
    early = replace(run, record=replace(run.record, validation=Validation(0.8, 2, 2)))
    assert "first three of its phase" in cautions(Results.of([early]))[0]


def test_every_metric_has_a_column_and_old_records_lack_some(shop: Dataset, tmp_path: Path) -> None:
    run = write_run(tmp_path / "new", shop)
    every = metrics_table(Results.of([run]))
    names = [f"{kind}@{k}" for k in (10, 20) for kind in ("HR", "recall", "precision", "MRR", "MAP", "NDCG")]
    assert headings(every) == names
    for name in names:
        assert cell(every, "BPR-MF", name) == run.metrics["exact"][name.lower()]
    lists = lists_table(Results.of([run]))
    assert cell(lists, "BPR-MF", "coverage@20", "") == run.metrics["exact"]["coverage@20"]
    assert "visual diversity@10" not in headings(lists, "")  # the shop has no pictures
    main = results_table(Results.of([run]))
    assert cell(main, "BPR-MF", "recall@20") == run.metrics["exact"]["recall@20"]
    old = {
        protocol: {name: value for name, value in values.items() if not name.endswith("@20") and "mrr" not in name}
        for protocol, values in run.metrics.items()
    }
    before = replace(run, record=replace(run.record, metrics=old))
    without = results_table(Results.of([before]))
    assert "recall@20" not in headings(without) and "HR@10" in headings(without)
    both = results_table(Results.of([before, write_run(tmp_path / "other", shop, "vbpr")]))
    assert np.isnan(cell(both, "BPR-MF", "recall@20")) and cell(both, "VBPR", "recall@20") >= 0


def test_what_was_chosen_by_is_shown_and_ordered_by(shop: Dataset, tmp_path: Path) -> None:
    """AUC and NDCG@10 disagree about everything."""

    def chosen(name: str, model: str, auc: float, ndcg: float, **fields: Any) -> Run:
        about = Validation(auc, 1, 2, "ndcg@10", {"auc": auc, "ndcg@10": ndcg})
        run = write_run(tmp_path / name, shop, model, validation=about, **fields)
        curve = pd.read_csv(run.folder / "curve.csv").assign(**{"validation_ndcg@10": [0.01, 0.02, ndcg, 0.03]})
        curve.to_csv(run.folder / "curve.csv", index=False)
        return open_run(run.folder)

    a, b = chosen("a", "bpr-mf", 0.9, 0.1), chosen("b", "fm-id", 0.6, 0.3)
    visual = chosen("c", "vbpr", 0.7, 0.2)
    results = Results.of([a, b, visual])
    assert results.chosen_by == "ndcg@10"
    assert results.comparison is not None and results.comparison.baseline == "FM-ID"
    assert "the one with the best validation NDCG@10" in comparison_note(results.comparison)
    figure = learning_curves(results)
    assert "Best validation NDCG@10" in figure.alt and "FM-ID 0.3000 at epoch 2 of 3, AUC" in figure.alt
    assert figure.get_supylabel() == "Validation NDCG@10 (exact), AUC in grey"
    rows = [chosen(f"g{n}", "bpr-mf", 0.9 - n / 10, n / 10, parameters={"factors": n}) for n in (1, 2)]
    table = search_table(Results.of(rows).rows, "ndcg@10")
    assert table["factors", ""].tolist() == [2, 1]
    assert table["validation NDCG@10", "mean"].tolist() == [0.2, 0.1]
    assert table["validation AUC", "mean"].tolist() == pytest.approx([0.7, 0.8])
    mixed = Results.of([a, write_run(tmp_path / "auc", shop, "fm-id", seed=5)])
    assert mixed.chosen_by == "auc"


@pytest.fixture(scope="module")
def owned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs on data in which every user owns the whole catalogue, but for the two held-out items."""
    users, n_items = 4, 6
    owners, bought = np.repeat(np.arange(users), n_items - 2), np.tile(np.arange(n_items - 2), users)
    data = Dataset(
        name="all-sold",
        user_ids=np.array([f"u{user}" for user in range(users)]),
        items=pd.DataFrame({Columns.ITEM: [f"i{item}" for item in range(n_items)]}),
        train=Interactions.from_pairs(owners, bought, users, n_items),
        validation=HeldOut(np.full(users, n_items - 2)),
        test=HeldOut(np.full(users, n_items - 1)),
    )
    root = tmp_path_factory.mktemp("owned")
    parameters: dict[str, dict[str, Any]] = {"poprank": {}, "fm-id": {"epochs": 1, "factors": 2}}
    for model, given in parameters.items():
        train_run(data, model, root / "runs" / model, parameters=given, progress=False)
    return root


@pytest.mark.filterwarnings("ignore:.*the same for everybody")
def test_a_report_in_which_nobody_can_be_ranked_says_so(owned: Path) -> None:
    runs = find_runs(owned / "runs")
    assert all(run.metrics["exact"]["auc"] is None for run in runs)
    results = Results.of(runs)
    assert not results.ranked and results.comparison is None
    page = write_report(owned / "runs", owned / "out", progress=False, markdown=owned / "all.md").read_text()
    sentence = "Nobody can be ranked here: the users own the whole catalogue but for their held-out items"
    assert sentence in page and sentence in (owned / "all.md").read_text()
    assert 'id="all-sold-1-runs"' in page and "fm-id" in page
    assert "—" in format_table(auc_table(results))


def test_a_band_whose_users_cannot_be_ranked_is_a_gap(shop: Dataset, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", shop)
    users = pd.read_parquet(run.folder / "per_user.parquet")
    cold = users["item_popularity"] == 0
    assert 0 < cold.sum() < len(users)
    counts = [str(name) for name in users if str(name).split("/")[-1] in ("higher", "tied", "candidates")]
    users.loc[cold, counts] = 0
    users.to_parquet(run.folder / "per_user.parquet", index=False)
    results = Results.of([open_run(run.folder)])
    table = popularity_table(results)
    gaps = [heading for heading in headings(table) if np.isnan(cell(table, "BPR-MF", heading))]
    assert gaps == ["0 (0 users)"]
    assert auc_by_popularity(results).alt and cost_vs_quality(results).alt and sampled_vs_exact(results).alt


def test_cold_and_new_users_are_told_apart_where_there_are_any(shop: Dataset, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", shop)
    assert "AUC of new users" not in headings(cold_table(Results.of([run])))
    exact = run.metrics["exact"] | {"new_auc": 0.25, "new_users": 3, "new_held_out": 4}
    record = replace(run.record, metrics=run.metrics | {"exact": exact})
    write_json(run.folder / "run.json", record.to_json())
    table = cold_table(Results.of([open_run(run.folder)]))
    assert cell(table, "BPR-MF", "AUC of new users") == 0.25
    assert cell(table, "BPR-MF", "test items of new users", "") == 4
