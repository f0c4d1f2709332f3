"""Lists of other programs: our own models' lists, given as another's, get the metrics that the models have."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from commands import call
from rankings import Table
from toy import planted_dataset

from imgrec_lib import InputError, Request, evaluate, evaluate_lists, find_runs, open_trained, train_run
from imgrec_lib.data.dataset import Columns, Dataset, HeldOut, Interactions
from imgrec_lib.evaluation.lists import LIST_METRICS
from imgrec_lib.explorer import VIEWS, Runs, State
from imgrec_lib.explorer.ranking import rank
from imgrec_lib.gallery import Gallery
from imgrec_lib.report import write_report
from imgrec_lib.results import Results, results_table
from imgrec_lib.runs import TESTED
from imgrec_lib.serving import compare_lists

DATASET, FEATURES = planted_dataset(n_users=40, n_items=60)
RNG = np.random.default_rng(0)
SCORES = RNG.normal(size=(DATASET.n_users, DATASET.n_items))
TIED = np.round(SCORES)


def ids(dataset: Dataset, users: np.ndarray, items: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame({"user": dataset.user_ids[users], "item": dataset.items[Columns.ITEM].to_numpy()[items]})


def listed(dataset: Dataset, scores: np.ndarray, length: int) -> pd.DataFrame:
    """The first items of each user's candidates, best first: all but training and validation items."""
    scores = scores.copy()
    scores[dataset.train.users, dataset.train.items] = -np.inf
    scores[dataset.validation.users, dataset.validation.flat] = -np.inf
    order = np.argsort(-scores, axis=1, kind="stable")[:, :length]
    users = np.repeat(np.arange(len(scores)), length)
    table = ids(dataset, users, order.ravel()).assign(score=np.take_along_axis(scores, order, 1).ravel())
    table["rank"] = np.tile(np.arange(1, length + 1), len(scores))
    return table[np.isfinite(table["score"])]


def several() -> Dataset:
    """Three test items of some users, none of others, and a user without training items."""
    held = Interactions.from_pairs(np.r_[0, 0, 0, 1, 2, 5, 5], np.r_[1, 2, 3, 4, 5, 6, 7], 8, 30)
    bought = Interactions.from_pairs(np.r_[0, 0, 1, 2, 3, 5], np.r_[10, 11, 12, 13, 14, 15], 8, 30)
    items = pd.DataFrame({Columns.ITEM: [f"{i:04}" for i in range(30)]})
    return Dataset(
        "several", np.array([f"0{u}" for u in range(8)]), items, bought, HeldOut(np.full(8, -1)), HeldOut(held)
    )


@pytest.mark.parametrize("dataset", [DATASET, several()], ids=["one", "several"])
def test_lists_have_the_metrics_of_the_scores_that_they_come_from(dataset: Dataset) -> None:
    """All with a cut-off up to the length, and all of the lists; AUC is not known. No order of rows matters."""
    scores = SCORES[: dataset.n_users, : dataset.n_items]
    features = FEATURES[: dataset.n_items]
    expected = evaluate(Table(scores), dataset, protocols=["exact"], features=features).metrics["exact"]
    table = listed(dataset, scores, 12).sample(frac=1, random_state=0)
    for given in (table.drop(columns="score"), table.drop(columns="rank")):
        with warnings.catch_warnings(action="error"):
            found = evaluate_lists(given, dataset, features=features).metrics["exact"]
        for name, value in found.items():
            if name.endswith(("auc", "auc_strict", "tie_share", "@20")):
                assert value is None, name
            else:
                assert value == pytest.approx(expected[name]), name
    assert sum(name.endswith("@10") for name in found) == 3 * 6 + len(LIST_METRICS)


def test_all_candidates_with_scores_give_auc_and_ties_too() -> None:
    for scores in (SCORES, TIED):
        whole = evaluate(Table(scores), DATASET, protocols=["exact"])
        table = listed(DATASET, scores, DATASET.n_items).drop(columns="rank")
        found = evaluate_lists(table, DATASET)
        assert found.metrics["exact"] == pytest.approx(whole.metrics["exact"])
        pd.testing.assert_frame_equal(found.per_user, whole.per_user)
        assert whole.lists is not None and found.lists is not None and (found.lists == whole.lists).all()
    one_missing = evaluate_lists(table.drop(index=table.index[5]), DATASET).metrics["exact"]
    assert one_missing["auc"] is None and one_missing["hr@20"] is not None


def test_what_lists_may_not_hold_is_counted_said_and_taken_out() -> None:
    clean = listed(DATASET, SCORES, 12).drop(columns="score")
    expected = evaluate_lists(clean, DATASET).metrics
    first, item = DATASET.user_ids[0], DATASET.items[Columns.ITEM].to_numpy()
    mine = clean[clean["user"] == first]["item"].to_numpy()
    wrong = pd.DataFrame(
        [
            (first, item[DATASET.train.of(0)[0]], 0.5),
            (first, item[DATASET.validation.items[0]], 0.6),
            (first, mine[0], 30.0),
            (first, "unheard of", 0.7),
            ("nobody", mine[0], 1.0),
            ("nobody", mine[1], 2.0),
        ],
        columns=["user", "item", "rank"],
    )
    without = clean[clean["user"] != DATASET.user_ids[3]]
    with pytest.warns(UserWarning) as said:
        found = evaluate_lists(pd.concat([wrong, clean]), DATASET).metrics
        evaluate_lists(without, DATASET)
    assert found == expected
    texts = "\n".join(str(warning.message) for warning in said)
    for sentence in (
        "names 1 users that this dataset does not have, such as 'nobody', in 2 rows: they are taken out",
        "names 1 items that this dataset does not have, such as 'unheard of', in 1 rows: they are taken out",
        "an item that its user has in an earlier place too in 1 rows",
        "owns by training or validation, which no list may hold in 2 rows",
        "no list for 1 of 40 users with a held-out item: they have found nothing",
    ):
        assert sentence in texts


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t: t.drop(columns=["rank", "score"]), "neither a column 'rank' nor 'score', only user, item: name one"),
        (lambda t: t.assign(rank="first"), "has 'first' as 'rank' in rows 1, 2, 3 and 477 others: a rank or a score"),
        (lambda t: t.assign(user="x"), "names no user of this dataset ('x', for example): check the ids"),
        (lambda t: t.drop(columns="item"), "has no column 'item'"),
    ],
)  # fmt: skip
def test_sentences(change: Callable[[pd.DataFrame], pd.DataFrame], sentence: str) -> None:
    with pytest.raises(InputError) as error:
        evaluate_lists(change(listed(DATASET, SCORES, 12)), DATASET)
    assert sentence in str(error.value)


def test_short_lists_are_measured_at_their_own_length() -> None:
    found = evaluate_lists(listed(DATASET, SCORES, 5), DATASET).metrics["exact"]
    expected = evaluate(Table(SCORES), DATASET, protocols=["exact"], cutoffs=[5]).metrics["exact"]
    assert found["hr@5"] == expected["hr@5"] and found["ndcg@5"] == expected["ndcg@5"] and found["hr@10"] is None


@pytest.mark.slow
def test_a_row_of_the_report_and_of_the_explorer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By command, with ids and a split that a run names; the lists are shown, and nothing takes them for a model."""
    options = {"n_users": 60, "n_items": 50, "image_size": 32}
    request = Request("poprank", dataset="wardrobe", dataset_options=options, feature_options={"size": 32})
    dataset, _ = request.load(progress=False)
    for seed in (0, 1):
        train_run(dataset, replace(request, seed=seed), tmp_path / "runs" / f"pop-{seed}", progress=False)
    scores = RNG.normal(size=(60, 50))
    table = listed(dataset, scores, 20).rename(columns={"user": "customer_id", "item": "article_id"})
    table.drop(columns="score").to_csv(tmp_path / "others.csv.gz", index=False)
    out = tmp_path / "runs" / "others"
    run = str(tmp_path / "runs" / "pop-0")
    arguments = (str(tmp_path / "others.csv.gz"), "--title", "Other tool", "--out", str(out))
    by_hand = [part for name, value in options.items() for part in ("-o", f"{name}={value}")]
    status, again, _ = call(monkeypatch, capsys, "compare-lists", *arguments, "--dataset", "wardrobe", *by_hand)
    assert status == 0
    status, text, err = call(monkeypatch, capsys, "compare-lists", *arguments, "--run", run)
    assert status == 0 and not err.replace("\n", ""), err
    expected = evaluate(Table(scores), dataset, protocols=["exact"]).metrics["exact"]
    assert f"ndcg@10                        {expected['ndcg@10']:.4f}" in text and "auc" not in text.split()
    assert again == text

    assert [run.name for run in find_runs(tmp_path / "runs")] == ["pop-0", "pop-1"]
    results = Results.of(find_runs(tmp_path / "runs", TESTED))
    frame = results_table(results)
    label = "Other tool (lists from elsewhere)"
    assert label in frame.index and frame.loc[label, ("NDCG@10", "mean")] == pytest.approx(expected["ndcg@10"])
    assert frame["AUC", "mean"].isna()[label] and [row.label for row in results.rows] == ["PopRank"]
    page = write_report(tmp_path / "runs", tmp_path / "report", progress=False).read_text(encoding="utf-8")
    assert label in page and "other programs' lists" in page.replace("&#39;", "'")

    opened = Runs(tmp_path / "runs").open("others")
    ranking = rank(opened, 3, State())
    mine = table[table["customer_id"] == dataset.user_ids[3]]["article_id"].tolist()
    assert opened.item_ids[ranking.items].tolist() == mine
    (shown,) = VIEWS["recommendations"](Runs(tmp_path / "runs"), State(run="others", user=str(dataset.user_ids[3])))
    assert isinstance(shown, Gallery)
    cells = shown.rows[1].cells
    assert opened.item_ids[[cell.item for cell in cells]].tolist()[:20] == mine
    assert [cell.score is None for cell in cells] == [cell.item not in ranking.items for cell in cells]
    with pytest.raises(InputError, match="run others holds the lists of Other tool, and no model"):
        open_trained(out, progress=False)
    with pytest.raises(InputError, match="holds a run of imgrec: choose another folder"):
        compare_lists(tmp_path / "others.csv.gz", dataset, tmp_path / "runs" / "pop-0", title="x")
    assert json.loads((out / "run.json").read_text())["stage"] == "lists"
