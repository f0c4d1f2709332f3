"""The verdict of finished runs: winners, ties, what pictures add and what is open, against numbers made by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from records import FEATURES, with_cold_items, write_run
from toy import planted_dataset

from imgrec_lib.data.dataset import Dataset
from imgrec_lib.evaluation import user_metrics
from imgrec_lib.figures import standings_chart
from imgrec_lib.results import Results, Standings, results_table
from imgrec_lib.results.significance import mean_intervals
from imgrec_lib.results.trials import ORACLE
from imgrec_lib.runs import Run, open_run

SHUFFLED = FEATURES | {"control": "shuffled pictures"}


@pytest.fixture(scope="module")
def shop() -> Dataset:
    return with_cold_items(planted_dataset(n_users=60, n_items=70)[0])


def moved(run: Run, change: float, seed: int = 0, by: int = 0) -> Run:
    """The run with every user's held-out item moved to a place of its own: a random one, times `change`.

    Args:
        by: give each user the place of the user so far away: the same mean, other users.
    """
    users = pd.read_parquet(run.folder / "per_user.parquet")
    places = np.random.default_rng(seed).integers(0, users["exact/candidates"].min(), len(users))
    users["exact/higher"], users["exact/tied"] = np.roll(places * change, by).astype(np.int64), 0
    users.to_parquet(run.folder / "per_user.parquet", index=False)
    values = user_metrics(users).mean()
    exact = run.record.metrics["exact"] | {name: float(values[name]) for name in ("auc", "hr@10", "ndcg@10")}
    return replace(open_run(run.folder), record=replace(run.record, metrics=run.record.metrics | {"exact": exact}))


@pytest.fixture(scope="module")
def five(shop: Dataset, tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """VBPR far ahead by AUC; its control behind it; FM-ID as VBPR but for ten users; two that are far behind."""
    tmp_path = tmp_path_factory.mktemp("five")
    vbpr = moved(write_run(tmp_path / "vbpr", shop, "vbpr", oracle=True), 0.3)
    control = moved(write_run(tmp_path / "control", shop, "vbpr", features=SHUFFLED), 0.6)
    same = moved(write_run(tmp_path / "same", shop, "fm-id"), 0.31)
    return [
        vbpr,
        control,
        same,
        moved(write_run(tmp_path / "bpr", shop, "bpr-mf"), 0.9, 1),
        moved(write_run(tmp_path / "pop", shop, "poprank", popularity=True, epochs=0, parameters={}), 1.0, 2),
    ]


def test_the_interval_is_that_of_the_mean_over_users() -> None:
    values = pd.DataFrame({"a": np.random.default_rng(0).normal(0.8, 0.1, 400), "b": 0.5})
    found, mean = mean_intervals(values).to_dict("index"), float(values["a"].mean())
    error = 1.96 * float(values["a"].std()) / 20
    assert found["a"] == pytest.approx({"mean": mean, "low": mean - error, "high": mean + error}, abs=0.002)
    assert found["b"] == {"mean": 0.5, "low": 0.5, "high": 0.5}
    with pytest.raises(ValueError, match="no user"):
        mean_intervals(values * np.nan)


def test_the_verdict_names_the_winner_its_equals_and_what_pictures_add(five: list[Run]) -> None:
    standings = Standings(Results.of(five))
    vbpr = float(user_metrics(five[0].per_user)["auc"].to_numpy().mean())
    winner, pictures = standings.verdict
    _, low, high = standings.of("VBPR")
    assert winner.startswith(f"By AUC VBPR is best, {vbpr:.4f} [{low:.4f}, {high:.4f}], ahead of every other")
    control = float(user_metrics(five[1].per_user)["auc"].to_numpy().mean())
    assert f"in place of shuffled ones AUC changes by +{vbpr - control:.4f} [+" in pictures and "chance" not in pictures
    # The control is no contestant, however well it does.
    assert standings.contestants == ["VBPR", "FM-ID", "BPR-MF", "PopRank"]
    assert standings.controlled == {"VBPR (shuffled pictures)": "VBPR"}
    assert [line.split()[-1] for line in standings.lines(3)] == ["VBPR", "FM-ID", "BPR-MF"]


def test_what_chance_may_explain_is_said(five: list[Run], shop: Dataset, tmp_path: Path) -> None:
    even = moved(write_run(tmp_path / "even", shop, "warp"), 0.3, by=7)
    (winner, pictures) = Standings(Results.of([*five[:1], even])).verdict
    assert ", not told apart from " in winner and "not measured" in pictures
    useless = moved(write_run(tmp_path / "useless", shop, "vbpr", features=SHUFFLED), 0.3)
    gain = Standings(Results.of([five[0], useless])).verdict[1]
    assert "+0.0000 [+0.0000, +0.0000] for VBPR (which may be chance)" in gain


def test_other_metrics_that_name_other_winners_are_named(five: list[Run]) -> None:
    top = five[3].record.metrics["exact"] | {"hr@10": 0.99}
    other = replace(five[3], record=replace(five[3].record, metrics=five[3].record.metrics | {"exact": top}))
    first = Standings(Results.of([*five[:3], other])).verdict[0]
    assert "Other metrics name other winners: by HR@10 BPR-MF (0.9900)" in first and "by NDCG@10" not in first
    assert "it is best by HR@10 and NDCG@10 too." in Standings(Results.of([five[0], five[3]])).verdict[0]


def test_the_metric_that_runs_were_chosen_by_decides(five: list[Run]) -> None:
    def by_top(run: Run) -> Run:
        return replace(run, record=replace(run.record, validation=replace(run.record.validation, choose_by="ndcg@10")))

    standings = Standings(Results.of([by_top(run) for run in five]))
    for run in five:
        label = "VBPR (shuffled pictures)" if run.record.control else run.record.title
        assert standings.of(label).mean == pytest.approx(user_metrics(run.per_user)["ndcg@10"].mean())
    assert standings.verdict[0].startswith("By NDCG@10 ") and "NDCG@10 changes by" in standings.verdict[1]


def test_what_was_shuffled_is_said_as_it_was(five: list[Run]) -> None:
    """An item's words are not its picture."""

    def of_words(run: Run) -> Run:
        changed = {**(run.record.features or {}), "control": "shuffled features"}
        return replace(run, record=replace(run.record, features=changed)) if run.record.control else run

    assert "With the items' own pictures in place of shuffled ones" in Standings(Results.of(five)).verdict[1]
    standings = Standings(Results.of([of_words(run) for run in five]))
    assert "With the items' own features in place of shuffled ones" in standings.verdict[1]
    assert "with its features shuffled" in standings_chart(standings).alt


def test_settings_that_were_not_searched_are_said(five: list[Run]) -> None:
    unsearched = replace(five[0], record=replace(five[0].record, requested={}))
    assert "settings of 1 of 5 rows were not searched" in Standings(Results.of([unsearched, *five[1:]])).verdict[-1]
    assert not any("searched" in sentence for sentence in Standings(Results.of(five)).verdict)


def test_a_single_row_claims_no_victory(five: list[Run]) -> None:
    (sentence, *_) = Standings(Results.of(five[3:4])).verdict
    assert sentence.startswith("BPR-MF has AUC 0.") and "no other run" in sentence and "best" not in sentence


def test_tables_for_reading_stand_best_first(five: list[Run]) -> None:
    results = Results.of(five).best_first
    table = results_table(results)
    means = table.drop(index=ORACLE)["AUC", "mean"]
    assert means.is_monotonic_decreasing and table.index[-1] == ORACLE and len(means) == 5


def test_the_figure_shows_every_row_and_its_control(five: list[Run]) -> None:
    standings = Standings(Results.of(five))
    for narrow in (False, True):
        figure = standings_chart(standings, narrow=narrow)
        (axes,) = figure.axes
        drawn = [np.asarray(line.get_xdata()).item() for line in axes.lines if line.get_marker() in ("o", "s")]
        assert drawn == pytest.approx([standings.of(label).mean for label in standings.contestants])
        (control,) = (line for line in axes.lines if line.get_marker() == "D")
        assert np.asarray(control.get_xdata()).item() == pytest.approx(standings.of("VBPR (shuffled pictures)").mean)
        assert figure.alt.startswith("AUC, the best first: VBPR 0.") and "with its pictures shuffled" in figure.alt
