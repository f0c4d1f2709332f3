"""The report: every number against the run records, marks, notices, and a page that is safe and self-contained."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.container import ErrorbarContainer
from matplotlib.text import Text
from narrow import metric_value, not_none, number_in
from PIL import Image
from records import FEATURES, with_cold_items, write_run
from toy import planted_dataset

from imgrec_lib.data.dataset import Dataset
from imgrec_lib.errors import InputError
from imgrec_lib.evaluation import user_metrics
from imgrec_lib.features import extract_features
from imgrec_lib.figures import (
    auc_by_history,
    auc_by_popularity,
    cost_vs_quality,
    difference_matrix,
    learning_curves,
    sampled_vs_exact,
)
from imgrec_lib.figures.curves import _name_points, single_panel, standings_chart, validation_curve
from imgrec_lib.report import format_table, write_report
from imgrec_lib.report.formats import Kind
from imgrec_lib.request import Request
from imgrec_lib.results import (
    Results,
    auc_table,
    caption,
    cold_table,
    comparison_note,
    cost_table,
    history_table,
    paper_tables,
    popularity_table,
    protocol_table,
    ranking_table,
    results_table,
    run_table,
    sizes_table,
)
from imgrec_lib.results.paper import DIFFERENCE, PAPER_TABLES
from imgrec_lib.results.standings import Standings
from imgrec_lib.results.trials import ORACLE
from imgrec_lib.runs import DatasetRecord, Run, Validation, find_runs, open_run, train_run

EVIL = '<script>alert("x")</script>'


@pytest.fixture(scope="module")
def shop() -> Dataset:
    return with_cold_items(planted_dataset(n_users=60, n_items=70)[0])


@pytest.fixture(scope="module")
def runs(shop: Dataset, tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """Three models, three seeds, one without training, with an oracle."""
    root = tmp_path_factory.mktemp("runs")
    for seed in range(3):
        write_run(root / f"vbpr-{seed}", shop, "vbpr", seed, oracle=True, epochs=2 + seed)
        write_run(root / f"bpr-{seed}", shop, "bpr-mf", seed, oracle=True)
        write_run(root / f"pop-{seed}", shop, "poprank", seed, oracle=True, popularity=True, epochs=0)
    return find_runs(root)


@pytest.fixture(scope="module")
def results(runs: list[Run]) -> Results:
    return Results.of(runs)


def of(runs: list[Run], model: str) -> list[Run]:
    return [run for run in runs if run.record.model == model]


def by_hand(values: list[float]) -> tuple[float, float]:
    """Mean and sample standard deviation, written out."""
    mean = sum(values) / len(values)
    return mean, (sum((v - mean) ** 2 for v in values) / (len(values) - 1)) ** 0.5


PLACES = {
    "AUC": ("exact", "auc"),
    "strict AUC": ("exact", "auc_strict"),
    "AUC, dvbpr-100": ("dvbpr-100", "auc"),
    "AUC, imgrec-100": ("imgrec-100", "auc"),
    "AUC, sampled-500": ("sampled-500", "auc"),
    "HR@10": ("exact", "hr@10"),
    "NDCG@10": ("exact", "ndcg@10"),
    "cold AUC": ("exact", "cold_auc"),
}


def test_every_number_of_the_main_table_comes_from_the_records(runs: list[Run], results: Results) -> None:
    table = auc_table(results)
    assert table.index.tolist() == ["PopRank", "BPR-MF", "VBPR", ORACLE]
    assert table["trials", ""].tolist() == [3, 3, 3, 3]
    for label, model in (("PopRank", "poprank"), ("BPR-MF", "bpr-mf"), ("VBPR", "vbpr"), (ORACLE, None)):
        records = [run.record for run in of(runs, model or "vbpr")]
        for heading, (protocol, metric) in PLACES.items():
            values = [metric_value(r.metrics if model else r.oracle, protocol, metric) for r in records]
            found = table.loc[label, (heading, "mean")], table.loc[label, (heading, "sd")]
            assert found == pytest.approx(by_hand(values), abs=1e-12), (label, heading)
    assert table.loc["VBPR", ("seconds per epoch", "")] == pytest.approx((3.5 + 4.5 + 5.5) / 3)
    assert np.isnan(number_in(table, "PopRank", ("seconds per epoch", "")))
    # The last decimal that is printed, too.
    vbpr_mean = by_hand([metric_value(run.metrics, "exact", "auc") for run in of(runs, "vbpr")])[0]
    assert f"{vbpr_mean:.4f}" in next(line for line in format_table(table).splitlines() if line.startswith("| VBPR"))


def test_the_other_tables_come_from_the_records(runs: list[Run], results: Results) -> None:
    records = [run.record for run in of(runs, "poprank")]
    protocols, ranking, cost = protocol_table(results), ranking_table(results), cost_table(results)
    for protocol in ("exact", "dvbpr-100", "imgrec-100", "sampled-500"):
        for heading, metric in ((protocol, "auc"), (f"{protocol}, strict", "auc_strict")):
            expected = by_hand([metric_value(r.metrics, protocol, metric) for r in records])
            assert (protocols.loc["PopRank", (heading, "mean")], protocols.loc["PopRank", (heading, "sd")]) == (
                pytest.approx(expected)
            )
        for name, metric in (("HR@10", "hr@10"), ("NDCG@10", "ndcg@10")):
            expected = by_hand([metric_value(r.metrics, protocol, metric) for r in records])
            assert ranking.loc["PopRank", (f"{name}, {protocol}", "mean")] == pytest.approx(expected[0])
    ties = number_in(protocols, "PopRank", ("tied candidates, share", ""))
    assert ties == metric_value(records[0].metrics, "exact", "tie_share") > 0
    assert cost.loc["VBPR", ("peak memory, MiB", "")] == 102
    assert cost.loc["VBPR", ("epochs", "")] == 3 and cost.loc["VBPR", ("seconds with validation", "")] == 5
    assert ORACLE not in cost.index


def test_cold_and_other_items_from_the_users_themselves(runs: list[Run], results: Results) -> None:
    table = cold_table(results)
    cold, warm = [], []
    for run in of(runs, "bpr-mf"):
        per_user = pd.read_parquet(run.folder / "per_user.parquet")
        values = user_metrics(per_user)["auc"]
        cold.append(values[per_user["item_popularity"] == 0].mean())
        warm.append(values[per_user["item_popularity"] > 0].mean())
    assert len(warm) == 3 and not np.allclose(cold, warm)
    assert table.loc["BPR-MF", ("cold AUC", "mean")] == pytest.approx(np.mean(cold))
    assert table.loc["BPR-MF", ("AUC of other items", "mean")] == pytest.approx(np.mean(warm))
    assert table.loc["BPR-MF", ("AUC of other items", "sd")] == pytest.approx(np.std(warm, ddof=1))


@pytest.mark.parametrize(
    ("function", "column"), [(popularity_table, "item_popularity"), (history_table, "history_length")]
)
def test_bands_from_the_users_themselves(
    runs: list[Run], results: Results, function: Callable[[Results], pd.DataFrame], column: str
) -> None:
    table = function(results)
    headings = list(dict.fromkeys(column[0] for column in table.columns if column[1] == "mean"))
    assert len(headings) > 1
    users_seen = 0
    for heading in headings:
        low, high, users = re.fullmatch(r"(\d+)(?:-(\d+)|(?:\+))? \((\d+) users?\)", heading).groups()  # type: ignore[union-attr]
        top = float("inf") if "+" in heading else float(high or low)
        values = []
        for run in of(runs, "vbpr"):
            per_user = run.per_user
            inside = per_user[column].between(int(low), top)
            assert inside.sum() == int(users)
            values.append(user_metrics(per_user)["auc"][inside].mean())
        users_seen += int(users)
        assert (table.loc["VBPR", (heading, "mean")], table.loc["VBPR", (heading, "sd")]) == (
            pytest.approx(by_hand(values))
        )
    assert users_seen == len(runs[0].per_user)


def test_run_table_has_every_run(runs: list[Run], results: Results) -> None:
    table = run_table(results)
    assert sorted(table.index) == sorted(run.name for run in runs)
    for run in runs:
        assert table.loc[run.name, "test AUC"] == run.metrics["exact"]["auc"]
        assert table.loc[run.name, "validation AUC"] == run.record.validation.auc


def test_a_single_trial_has_no_deviation(shop: Dataset, tmp_path: Path) -> None:
    table = auc_table(Results.of([write_run(tmp_path / "one", shop)]))
    assert np.isnan(table["AUC", "sd"].item()) and "±" not in format_table(table)


def test_copies_of_a_run_count_once(shop: Dataset, tmp_path: Path) -> None:
    for seed in (0, 1):
        write_run(tmp_path / f"{seed}", shop, seed=seed)
    once = auc_table(Results.of(find_runs(tmp_path)))
    write_run(tmp_path / "again", shop, seed=1)
    pd.testing.assert_frame_equal(auc_table(Results.of(find_runs(tmp_path))), once)


def test_only_seeds_are_averaged(shop: Dataset, tmp_path: Path) -> None:
    write_run(tmp_path / "a", shop)
    write_run(tmp_path / "b", shop, parameters={"factors": 8})
    write_run(tmp_path / "c", shop, profile="paper")
    write_run(tmp_path / "d", shop, "vbpr")
    write_run(tmp_path / "e", shop, "vbpr", features=FEATURES | {"random": "yes", "weights": "random weights (seed 0)"})
    labels = [row.label for row in Results.of(find_runs(tmp_path)).rows]
    assert sorted(labels[:2]) == ["BPR-MF (factors 4)", "BPR-MF (factors 8)"]
    assert labels[2] == "BPR-MF (paper profile)"
    assert sorted(labels[3:]) == [
        "VBPR (features: weights imagenet)",
        "VBPR (features: weights random weights (seed 0); random weights)",
    ]


def test_a_row_names_what_was_turned_in_it(shop: Dataset, tmp_path: Path) -> None:
    base = {"item_bias": True, "threshold": 0.2, "two_user_vectors": False}
    turned: list[dict[str, Any]] = [
        {},
        {"item_bias": False},
        {"threshold": 0.5},
        {"threshold": 0.1, "two_user_vectors": True},
    ]
    turned.append({"two_user_vectors": True})
    for number, changed in enumerate(turned):
        write_run(tmp_path / f"{number}", shop, "saers", parameters=base | changed)
    rows = Results.of(find_runs(tmp_path)).rows
    assert {row.label: {k: v for k, v in row.record.parameters.items() if v != base[k]} for row in rows} == {
        "SAERS †": {},
        "SAERS † (item_bias False)": turned[1],
        "SAERS † (threshold 0.5)": turned[2],
        "SAERS † (threshold 0.1; two_user_vectors True)": turned[3],
        "SAERS † (two_user_vectors True)": turned[4],
    }


def test_notices(shop: Dataset, tmp_path: Path) -> None:
    plain = write_run(tmp_path / "a", shop, "bpr-mf", fidelity="faithful")
    random = write_run(tmp_path / "b", shop, "vbpr", fidelity="faithful", features=FEATURES | {"random": "yes"})
    rebuilt = write_run(tmp_path / "c", shop, "deepstyle", fidelity="reconstruction")
    assert "random weights" not in caption(Results.of([plain, rebuilt]))
    text = caption(Results.of([plain, random]))
    assert "†" not in text and "untrained network" in text
    assert "† A reconstruction" in caption(Results.of([rebuilt]))
    rows = auc_table(Results.of([plain, random, rebuilt])).index
    assert [label for label in rows if "random weights" in label] == ["VBPR (random weights)"]
    assert [label for label in rows if "†" in label] == ["DeepStyle †"]
    for kind in ("markdown", "html", "latex", "csv"):
        assert "random weights" in format_table(auc_table(Results.of([plain, random])), kind)


def test_caption_states_catalogue_split_and_tie_rule(shop: Dataset, results: Results) -> None:
    text = caption(results)
    cold = (shop.train.popularity[shop.test.items] == 0).mean()
    assert 0 < cold < 1
    assert "60 users, 70 items" in text and f"{len(shop.train)} training interactions" in text
    assert "random split (seed 0, min interactions 5)" in text
    assert "cold items included" in text and f"{cold:.1%} of the 60 held-out items are cold" in text
    assert "a tie counts one half" in text and "3 seeds a row" in text


def test_caption_states_at_what_size_pictures_are_seen(shop: Dataset, tmp_path: Path) -> None:
    bpr = write_run(tmp_path / "a", shop)
    vbpr = write_run(tmp_path / "b", shop, "vbpr", features=FEATURES | {"size": "224"})
    own = write_run(tmp_path / "c", shop, "saers", parameters={"backbone": "efficientnet-lite0", "size": 0})
    small = write_run(tmp_path / "d", shop, "dvbpr", parameters={"size": 64})
    assert "Pictures" not in caption(Results.of([bpr]))
    assert "Pictures: efficientnet-lite0 at 224 px." in caption(Results.of([bpr, vbpr, own]))
    assert "Pictures: efficientnet-lite0 at 224 px (VBPR); 64 px (DVBPR)." in caption(Results.of([small, bpr, vbpr]))


def test_datasets_are_never_mixed(shop: Dataset, tmp_path: Path) -> None:
    other = with_cold_items(planted_dataset(n_users=50, n_items=70, seed=1)[0])
    for number, dataset in enumerate((shop, other, shop)):
        write_run(tmp_path / f"{number}", dataset, seed=number)
    found = find_runs(tmp_path)
    groups = Results.by_dataset(found)
    assert sorted(len(group.runs) for group in groups) == [1, 2]
    assert all(len({run.record.dataset.fingerprint for run in group.runs}) == 1 for group in groups)
    with pytest.raises(InputError, match="2 datasets"):
        Results.of(found)
    with pytest.raises(InputError, match="no run"):
        Results.of([])
    sizes = sizes_table(groups, {shop.fingerprint: shop})
    assert sorted(sizes["users"]) == [50, 60]
    loaded = sizes[sizes["users"] == 60].iloc[0]
    assert loaded["cold items"] == (shop.train.popularity == 0).sum()
    assert np.isnan(sizes[sizes["users"] == 50].iloc[0]["cold items"])


def marked(values: list[float], labels: list[str], kind: Kind = "html") -> str:
    columns = pd.MultiIndex.from_tuples([("AUC", "mean"), ("AUC", "sd"), ("cost", "")])
    data = [[value, 0.01, 3.0] for value in values]
    return format_table(pd.DataFrame(data, pd.Index(labels, name="model"), columns), kind)


def test_best_is_bold_and_second_underlined_without_the_oracle() -> None:
    text = marked([0.7, 0.8, 0.99, 0.75], ["a", "b", ORACLE, "c"])
    assert re.findall(r"<strong>(.*?)</strong>", text) == ["0.8000"]
    assert re.findall(r"<u>(.*?)</u>", text) == ["0.7500"]
    markdown = marked([0.7, 0.8, 0.99, 0.75], ["a", "b", ORACLE, "c"], "markdown")
    assert "| b | **0.8000** ± 0.0100 | 3 |" in markdown and "| c | <ins>0.7500</ins> ± 0.0100 | 3 |" in markdown
    latex = marked([0.7, 0.8, 0.99, 0.75], ["a", "b_1", ORACLE, "c"], "latex")
    assert r"b\_1 & \textbf{0.8000} $\pm$ 0.0100 & 3 \\" in latex and r"\underline{0.7500}" in latex
    assert all(line in latex for line in ("\\toprule", "\\midrule", "\\bottomrule", "\\begin{tabular}{lrr}"))


def test_equal_as_printed_is_equally_good_and_missing_never_is() -> None:
    text = marked([0.80001, 0.79999, 0.7, float("nan")], ["a", "b", "c", "d"])
    assert re.findall(r"<strong>(.*?)</strong>", text) == ["0.8000", "0.8000"]
    assert re.findall(r"<u>(.*?)</u>", text) == ["0.7000"] and "—" in text
    assert "<strong>" not in marked([0.8, 0.9], ["a", ORACLE])
    shared = marked([0.02, 0.0, 0.0, 0.0, 0.0], list("abcde"))
    assert re.findall(r"<strong>(.*?)</strong>", shared) == ["0.0200"] and "<u>" not in shared


def test_csv_keeps_all_digits(results: Results) -> None:
    table = auc_table(results)
    read = pd.read_csv(io.StringIO(format_table(table, "csv")), index_col="model")
    np.testing.assert_array_equal(read["AUC mean"], table["AUC", "mean"])
    np.testing.assert_array_equal(read["AUC sd"], table["AUC", "sd"])


def test_format_escapes_and_refuses() -> None:
    text = marked([0.5, 0.6], [EVIL, "a|b"])
    assert "<script" not in text and "&lt;script&gt;" in text
    assert "a\\|b" in marked([0.5, 0.6], [EVIL, "a|b"], "markdown")
    assert "<script" not in marked([0.5, 0.6], [EVIL, "a|b"], "markdown")
    with pytest.raises(InputError, match="markdown"):
        marked([0.5], ["a"], "markdow")  # type: ignore[arg-type]  # on purpose


def test_paper_tables_on_a_dataset_of_the_paper(shop: Dataset, tmp_path: Path) -> None:
    amazon = DatasetRecord("dvbpr", "f" * 16, 45_184, 166_270, 267_635, {"kind": "published"})
    found = [
        write_run(tmp_path / f"{model}-{seed}", shop, model, seed, dataset=amazon)
        for model in ("bpr-mf", "imgrec-ft")
        for seed in (0, 1)
    ]
    tables = paper_tables(Results.of(found))
    assert list(tables) == [table.title for table in PAPER_TABLES]
    second, _, fourth = tables.values()
    ours = np.mean([metric_value(run.metrics, "imgrec-100", "auc_strict") for run in of(found, "bpr-mf")]).item()
    assert second.loc["BPR-MF", ("paper", "")] == 0.6278
    assert second.loc["BPR-MF", (DIFFERENCE, "difference")] == pytest.approx(ours - 0.6278)
    assert second.loc["BPR-MF", ("AUC", "mean")] == pytest.approx(
        np.mean([metric_value(run.metrics, "imgrec-100", "auc") for run in of(found, "bpr-mf")])
    )
    assert second.loc["PopRank", ("paper", "")] == 0.5849 and np.isnan(number_in(second, "PopRank", ("AUC", "mean")))
    assert fourth[("paper", "")].tolist() == [0.7770, 0.8090, 0.8250]


def test_paper_tables_elsewhere_have_no_paper_column(results: Results) -> None:
    tables = paper_tables(results)
    assert list(tables) == [PAPER_TABLES[0].title]
    (table,) = tables.values()
    assert table.index.tolist() == ["PopRank", "BPR-MF", "VBPR", ORACLE]
    assert "paper" not in table.columns.get_level_values(0)


def test_curve_counts_epochs_through_the_phases(shop: Dataset, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", shop)
    curve = pd.DataFrame(
        {
            "phase": [1, 1, 1, 1, 2, 2],
            "epoch": [0, 1, 2, 3, 0, 1],
            "validation_auc": [0.5, 0.6, None, 0.7, 0.7, 0.8],
        }
    )
    curve.to_csv(run.folder / "curve.csv", index=False)
    found = validation_curve(open_run(run.folder))
    assert found.index.tolist() == [0, 1, 3, 4] and found.tolist() == [0.5, 0.6, 0.7, 0.8]


def test_figures_name_every_model_and_say_what_they_show(runs: list[Run], results: Results) -> None:
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    labels = ["PopRank", "BPR-MF", "VBPR"]
    for function in (auc_by_popularity, auc_by_history):
        figure = function(results)
        assert [axes.get_title(loc="left") for axes in figure.axes] == labels
        assert figure.get_supxlabel() and figure.get_supylabel()
        table = {auc_by_popularity: popularity_table, auc_by_history: history_table}[function](results)
        for label, axes in zip(labels, figure.axes, strict=True):
            (bars,) = axes.containers
            assert isinstance(bars, ErrorbarContainer)
            drawn = np.array(bars.lines[0].get_ydata()).astype(float)
            np.testing.assert_allclose(drawn, table.loc[label].xs("mean", level=1).to_numpy(float))
        best = pd.DataFrame(table.xs("mean", axis=1, level=1)).iloc[:, 0]
        assert f"highest {best.idxmax()} {best.max():.4f}, lowest {best.idxmin()} {best.min():.4f}" in figure.alt
    figure = sampled_vs_exact(results)
    (axes,) = figure.axes
    assert [tick.get_text() for tick in axes.get_yticklabels()] == labels
    assert len(not_none(axes.get_legend()).get_texts()) == 8 and "PopRank" in figure.alt
    figure = cost_vs_quality(results)
    (axes,) = figure.axes
    assert {text.get_text() for text in axes.texts} == set(labels)
    for label in labels:
        assert f"{label} {number_in(auc_table(results), label, ('AUC', 'mean')):.4f} in" in figure.alt
    assert plt.get_fignums() == before


@pytest.mark.filterwarnings("error")
def test_figures_have_room_for_long_names(results: Results) -> None:
    long = "; ".join(f"setting_{number} False" for number in range(8))
    rows = tuple(replace(row, label=f"{row.label} ({long})") for row in results.rows)
    named = Results(rows)
    standings = Standings(named)
    for figure in (
        standings_chart(standings), standings_chart(standings, narrow=True), learning_curves(named),
        auc_by_history(named), sampled_vs_exact(named), cost_vs_quality(named),
        difference_matrix(not_none(named.comparison)),
    ):  # fmt: skip
        figure.draw_without_rendering()
        # What is drawn has the larger part of the figure's width.
        assert sum(axes.get_position().width for axes in figure.axes[:3]) > 0.5


def test_names_of_points_do_not_cover_each_other() -> None:
    figure, axes = single_panel()
    points = [(1 + 0.01 * number, 0.8 + 0.001 * number, f"Model number {number}") for number in range(18)]
    axes.plot(*list(zip(*points, strict=True))[:2], "o")
    _name_points(figure, axes, points)
    figure.draw_without_rendering()
    renderer = FigureCanvasAgg(figure).get_renderer()
    boxes = [Text.get_window_extent(text, renderer) for text in axes.texts]
    assert len(boxes) == 18
    assert not [1 for a, b in combinations(boxes, 2) if a.overlaps(b)]
    # Where there is room, a name stands right beside its point and needs no line.
    figure, axes = single_panel()
    axes.plot([1, 2], [1, 2], "o")
    _name_points(figure, axes, [(1, 1, "one"), (2, 2, "two")])
    assert [(text.xyann[1], text.arrow_patch) for text in axes.texts] == [(0, None), (0, None)]  # type: ignore[attr-defined]


def test_learning_curve_is_the_mean_over_the_trials_that_still_train(runs: list[Run], results: Results) -> None:
    figure = learning_curves(results)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["BPR-MF", "VBPR"]
    (line,) = [line for line in figure.axes[1].get_lines() if line.get_label() == "_mean"]
    curves = [pd.read_csv(run.folder / "curve.csv")["validation_auc"].tolist() for run in of(runs, "vbpr")]
    longest = max(map(len, curves))
    assert sorted(map(len, curves)) == [3, 4, 5]
    expected = [np.mean([curve[i] for curve in curves if len(curve) > i]) for i in range(longest)]
    np.testing.assert_allclose(np.asarray(line.get_ydata(), float), expected)
    (kept,) = [line for line in figure.axes[1].get_lines() if line.get_label() == "_kept"]
    assert sorted(map(float, kept.get_ydata())) == sorted(max(curve) for curve in curves)  # type: ignore[arg-type]
    best = np.mean([max(curve) for curve in curves])
    assert f"VBPR {best:.4f} at epoch" in figure.alt and "Best without training: PopRank" in figure.alt


def test_learning_curves_of_models_that_are_not_trained(shop: Dataset, tmp_path: Path) -> None:
    figure = learning_curves(Results.of([write_run(tmp_path / "pop", shop, "poprank", epochs=0)]))
    assert not figure.axes and "0 trained models" in figure.alt


def test_difference_matrix_tells_what_holds(shop: Dataset, results: Results) -> None:
    comparison = results.comparison
    assert comparison is not None
    figure = difference_matrix(comparison)
    (axes,) = figure.axes
    order = auc_table(results)["AUC", "mean"].drop(ORACLE).sort_values(ascending=False)
    assert [tick.get_text() for tick in axes.get_yticklabels()] == order.index[:-1].tolist()
    assert [tick.get_text() for tick in axes.get_xticklabels()] == order.index[1:].tolist()
    lead = f"{1000 * (order.iloc[0] - order.iloc[1]):.1f}"
    assert axes.texts[0].get_text() in (lead, f"({lead})")
    held = sum(not text.get_text().startswith("(") for text in axes.texts)
    assert held == len(axes.collections) and f"{held} of 3 paired differences hold" in figure.alt


def test_best_and_baseline_are_compared_in_the_main_table(shop: Dataset, tmp_path: Path) -> None:
    lead = with_lead(write_run(tmp_path / "vbpr", shop, "vbpr"), 8)
    weak = write_run(tmp_path / "bpr", shop, "bpr-mf", validation=Validation(0.6, 1, 1))
    pop = write_run(tmp_path / "pop", shop, "poprank", popularity=True, validation=Validation(0.5, 1, 1))
    comparison = Results.of([lead, weak, pop]).comparison
    assert comparison is not None and (comparison.best, comparison.baseline) == ("VBPR", "BPR-MF")
    table = results_table(Results.of([lead, weak, pop]))
    difference = number_in(table, "VBPR", ("AUC against BPR-MF", "difference"))
    assert table.loc["VBPR", ("AUC against BPR-MF", "holds")] and difference > 0
    assert np.isnan(number_in(table, "BPR-MF", ("AUC against BPR-MF", "difference")))
    row = next(line for line in format_table(table).splitlines() if line.startswith("| VBPR"))
    assert row.endswith(f"| — | +{difference:.4f} \\* |")
    assert f'+{difference:.4f}</a><span class="holds"' in format_table(table, "html", links={"VBPR": "#x"})
    assert "BPR-MF is the baseline" in comparison_note(comparison) and "Holm" in comparison_note(comparison)
    assert Results.of([lead]).comparison is None
    alone = Results.of([weak, pop]).comparison
    assert alone is not None and alone.baseline is None


def with_lead(run: Run, places: int) -> Run:
    """The run with every held-out item that many places higher up."""
    users = pd.read_parquet(run.folder / "per_user.parquet")
    users["exact/higher"] = np.maximum(users["exact/higher"] // places, 0)
    users.to_parquet(run.folder / "per_user.parquet", index=False)
    return open_run(run.folder)


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def check_page(text: str) -> Page:
    """What holds for any page: nothing from outside, no script but the page's own, whose digest the browser checks, alt
    texts, unique ids, links that lead somewhere."""
    assert "http:" not in text and "https:" not in text and text.count("<script") == 1
    page = Page(text)
    assert not page.of("link") and page.of("script") == [{}] and not page.of("iframe")
    script = text.partition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = (meta["content"] for meta in page.of("meta") if "http-equiv" in meta)
    assert policy == f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'"
    for name in ("src", "srcset", "xlink:href", "data", "poster"):
        for _, attributes in page.tags:
            if attributes.get(name):
                assert re.match("data:|#", attributes[name] or ""), attributes
    assert all(image.get("alt") for image in page.of("img"))
    for drawing in page.of("svg"):
        assert drawing["role"] == "img" and drawing["aria-labelledby"]
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for link in page.of("a"):
        target = link["href"] or ""
        assert not target.startswith("#") or target[1:] in ids, target
    for drawing in page.of("svg"):
        assert set((drawing["aria-labelledby"] or "").split()) <= set(ids)
    for reference in re.findall(r"url\(#([^)]+)\)", text):
        assert reference in ids
    assert "prefers-color-scheme: dark" in text
    return page


@pytest.mark.slow
def test_report_without_the_data(runs: list[Run], results: Results, tmp_path: Path) -> None:
    (runs[0].folder / "notebook.ipynb").write_text("{}")
    out = tmp_path / "reports & more"
    path = write_report(runs[0].folder.parent, out, progress=False)
    assert path == out / "index.html"
    text = path.read_text(encoding="utf-8")
    page = check_page(text)
    assert len(page.of("svg")) == 8 and "The pictures cannot be shown" in text
    assert ORACLE in text and "cold items included" in text
    for run in runs:
        assert run.name in text
    linked = [a["href"] for a in page.of("a") if (a["href"] or "").endswith("notebook.ipynb")]
    assert len(linked) == 1 and (out / (linked[0] or "")).resolve() == (runs[0].folder / "notebook.ipynb").resolve()
    main = format_table(results_table(results.best_first))
    assert main.rstrip() in (out / "tables.md").read_text()
    assert (out / "tables" / "planted-1-auc.md").read_text() == main
    assert format_table(results_table(results.best_first), "latex").rstrip() in (out / "tables.tex").read_text()
    with open(out / "tables.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    (value,) = [
        row["value"]
        for row in rows
        if (row["table"], row["row"], row["column"], row["statistic"]) == ("Results", "VBPR", "AUC", "mean")
    ]
    assert float(value) == auc_table(results).loc["VBPR", ("AUC", "mean")]


@pytest.mark.slow
def test_report_replaces_an_earlier_one(runs: list[Run], tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "old.md").write_text("stale")
    first = write_report(runs[0].folder.parent, tmp_path, progress=False).read_text()
    assert not (tmp_path / "tables" / "old.md").exists()
    assert write_report(runs[0].folder.parent, tmp_path, progress=False).read_text() == first


def test_report_escapes_names(shop: Dataset, tmp_path: Path) -> None:
    evil = DatasetRecord(EVIL, "f" * 16, 60, 70, 9, None)
    write_run(tmp_path / "runs" / "a<b>&", shop, title=EVIL, device=EVIL, dataset=evil)
    text = write_report(tmp_path / "runs", tmp_path / "out", progress=False).read_text(encoding="utf-8")
    check_page(text)
    assert "&lt;script&gt;" in text and "a&lt;b&gt;&amp;" in text


@pytest.mark.slow
def test_report_has_a_section_for_each_dataset(shop: Dataset, tmp_path: Path) -> None:
    other = with_cold_items(planted_dataset(n_users=50, n_items=70, seed=1)[0])
    write_run(tmp_path / "runs" / "a", shop)
    write_run(tmp_path / "runs" / "b", other)
    text = write_report(tmp_path / "runs", tmp_path / "out", progress=False).read_text(encoding="utf-8")
    check_page(text)
    assert "planted (60 users, 70 items)" in text and "planted (50 users, 70 items)" in text
    assert {path.name for path in (tmp_path / "out" / "tables").glob("*-auc.md")} == {
        "planted-1-auc.md", "planted-2-auc.md",
    }  # fmt: skip


def test_report_of_nothing_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no finished run"):
        write_report(tmp_path, tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


def own_catalogue(root: Path) -> dict[str, Any]:
    """A user's own catalogue on disk, with hostile names, and the options to load it."""
    dataset, _ = planted_dataset(n_users=25, n_items=24, history=7)
    rng = np.random.default_rng(0)
    (root / "images").mkdir(parents=True)
    for number, item in enumerate(dataset.items["item"]):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(root / "images" / f"{item}.png")
        dataset.items.loc[number, "name"] = f"{EVIL} {number}"
    dataset.items[["item", "name", "category"]].to_csv(root / "items.csv", index=False)
    pairs = [(f"{EVIL}{u}", f"i{i}") for u in range(25) for i in [*dataset.train.of(u), dataset.test.items[u]]]
    pd.DataFrame(pairs, columns=["user", "item"]).to_csv(root / "interactions.csv", index=False)
    return {"image_size": 32, "cache": str(root / "cache"), "progress": False}


@pytest.mark.slow
def test_report_with_pictures(tmp_path: Path) -> None:
    from imgrec_lib.data import load_dataset

    options = own_catalogue(tmp_path / "shop")
    dataset = load_dataset("table", tmp_path / "shop", **options)
    assert dataset.images is not None
    features = extract_features(dataset.images, weights="random", size=32, progress=False)
    for factors in (4, 5):
        request = Request(
            "imgrec-ft",
            parameters={"epochs": 2, "factors": factors},
            dataset="table",
            root=str(tmp_path / "shop"),
            dataset_options=options,
            weights="random",
            feature_options={"size": 32},
        )
        train_run(dataset, request, tmp_path / "runs" / str(factors), features=features, progress=False)
    out = tmp_path / "out"
    text = write_report(tmp_path / "runs", out, progress=False).read_text(encoding="utf-8")
    page = check_page(text)
    assert "ImgRec-FT (factors 4; random weights)" in text and "untrained network" in text
    assert re.search(r"with the lowest AUC by ImgRec-FT \(factors [45]; random weights\)", text)
    assert "by visual features (random weights)" in text and "is recommended; the test item is number" in text
    # Two categories, a row by features and one by embeddings for each: a query and seven neighbours.
    assert len([i for i in page.of("img") if "query" in (i["alt"] or "").split(", ")]) == 4
    assert all("alert" in (image["alt"] or "") for image in page.of("img"))
    sheets = sorted((out / "galleries").glob("*.png"))
    assert [sheet.name for sheet in sheets] == [
        "table-1-neighbours.png", "table-1-recommendations.png", "table-1-worst-served.png",
    ]  # fmt: skip
    for sheet in sheets:
        with Image.open(sheet) as image:
            assert image.width > 500
    (tmp_path / "shop" / "interactions.csv").unlink()
    text = write_report(tmp_path / "runs", out, progress=False).read_text(encoding="utf-8")
    check_page(text)
    assert "The pictures cannot be shown" in text and "interactions" in text and not list((out / "galleries").iterdir())
