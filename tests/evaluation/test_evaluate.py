"""Evaluation against scikit-learn and against plain loops over users and items."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rankings import Model, Table, coarse, make
from sklearn.metrics import roc_auc_score
from torch import Tensor
from toy import best_items

from imgrec_lib.data.dataset import Dataset, HeldOut, Interactions
from imgrec_lib.errors import InputError
from imgrec_lib.evaluation import (
    PROTOCOLS,
    ValidationAUC,
    ValidationMetrics,
    evaluate,
    history_bands,
    negative_lists,
    popularity_bands,
    user_metrics,
)
from imgrec_lib.models.base import InnerProduct, TrainSettings


def candidates(dataset: Dataset, user: int, part: str) -> list[int]:
    """Candidates of `exact`, by the definition."""
    out = {*dataset.train.of(user), getattr(dataset, part).items[user]}
    if part == "test":
        out.add(dataset.validation.items[user])
    return [i for i in range(dataset.n_items) if i not in out]


@pytest.mark.parametrize("part", ["test", "validation"])
@pytest.mark.parametrize("levels", [4, 10**6])
def test_exact_auc_of_each_user_equals_scikit_learn(part: str, levels: int) -> None:
    dataset = make(40, 30)
    scores = coarse(dataset, levels=levels)
    per_user = evaluate(Table(scores), dataset, protocols=["exact"], part=part).per_user
    values = user_metrics(per_user)["auc"]
    held = getattr(dataset, part).items
    assert per_user["user"].tolist() == [u for u in range(40) if held[u] >= 0]
    assert per_user["item"].tolist() == [p for p in held if p >= 0]
    for user, item, value in zip(per_user["user"], per_user["item"], values, strict=True):
        items = [item, *candidates(dataset, user, part)]
        assert value == pytest.approx(roc_auc_score([1] + [0] * (len(items) - 1), scores[user, items]))


def brute_force(dataset: Dataset, scores: np.ndarray, protocol: str, part: str, seed: int) -> dict[str, list[float]]:
    """Metrics by loops over users and candidates, ties in random order by explicit positions."""
    held = getattr(dataset, part).items
    lists = None if protocol == "exact" else negative_lists(dataset, protocol, seed, part)
    result: dict[str, list[float]] = {"auc": [], "auc_strict": [], "hr@10": [], "ndcg@10": [], "tie_share": []}
    for user in range(dataset.n_users):
        if held[user] < 0:
            continue
        items = candidates(dataset, user, part) if lists is None else [i for i in lists[user] if i >= 0]
        if not items:
            continue
        positive = scores[user, held[user]]
        above = sum(scores[user, i] > positive for i in items)
        equal = sum(scores[user, i] == positive for i in items)
        ranks = np.arange(above, above + equal + 1)
        result["auc"].append(1 - (above + equal / 2) / len(items))
        result["auc_strict"].append(sum(scores[user, i] < positive for i in items) / len(items))
        result["hr@10"].append(float(np.mean(ranks < 10)))
        result["ndcg@10"].append(float(np.mean(np.where(ranks < 10, 1 / np.log2(ranks + 2), 0))))
        result["tie_share"].append(equal / len(items))
    return result


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 12), st.integers(2, 60), st.integers(0, 99), st.sampled_from(["test", "validation"]))
def test_every_protocol_equals_brute_force(n_users: int, n_items: int, seed: int, part: str) -> None:
    dataset = make(n_users, n_items, seed)
    scores = coarse(dataset, seed)
    metrics = evaluate(Table(scores), dataset, seed=seed, part=part).metrics
    assert list(metrics) == ["exact", "dvbpr-100", "imgrec-100", "sampled-500"]
    for protocol, values in metrics.items():
        expected = brute_force(dataset, scores, protocol, part, seed)
        assert values["users"] == len(expected["auc"])
        for name, each in expected.items():
            if each:
                assert values[name] == pytest.approx(np.mean(each)), (protocol, name)
            else:
                assert values[name] is None


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 15), st.integers(2, 40), st.integers(0, 99), st.integers(1, 40_000))
def test_neither_block_size_nor_company_changes_anything(
    n_users: int, n_items: int, seed: int, block_bytes: int
) -> None:
    dataset = make(n_users, n_items, seed)
    scorer = Table(coarse(dataset, seed))
    whole = evaluate(scorer, dataset)
    blocked = evaluate(scorer, dataset, block_bytes=block_bytes)
    pd.testing.assert_frame_equal(whole.per_user, blocked.per_user)
    assert whole.metrics == blocked.metrics
    for name in PROTOCOLS:  # alone, a sampled protocol scores pairs instead of the catalogue
        alone = evaluate(scorer, dataset, protocols=[name], block_bytes=block_bytes)
        assert alone.metrics == {name: whole.metrics[name]}


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 12), st.integers(3, 30), st.integers(0, 99), st.randoms(use_true_random=False))
def test_renumbering_items_and_users_changes_no_exact_metric(
    n_users: int, n_items: int, seed: int, random: Random
) -> None:
    dataset = make(n_users, n_items, seed)
    scores = coarse(dataset, seed)
    new_item, new_user = (np.array(random.sample(range(n), n)) for n in (n_items, n_users))
    old_user = np.argsort(new_user)

    def renumbered(held: HeldOut) -> HeldOut:
        items = held.items[old_user]
        return HeldOut(np.where(items >= 0, new_item[items], -1))

    train = dataset.train
    other = Dataset(
        "renumbered", dataset.user_ids[old_user], dataset.items.iloc[np.argsort(new_item)].reset_index(drop=True),
        Interactions.from_pairs(new_user[train.users], new_item[train.items], n_users, n_items),
        renumbered(dataset.validation), renumbered(dataset.test),
    )  # fmt: skip
    moved = scores[old_user][:, np.argsort(new_item)]
    before = evaluate(Table(scores), dataset, protocols=["exact"]).metrics["exact"]
    after = evaluate(Table(moved), other, protocols=["exact"]).metrics["exact"]
    # In lists, which item stands first of those that tie is a matter of their numbers.
    untied = {key for key in before if key.partition("@")[0] not in ("coverage", "gini", "novelty", "popularity")}
    assert {key: before[key] for key in untied} == {key: pytest.approx(after[key]) for key in untied}
    assert ValidationAUC(dataset)(Model(Table(scores))) == pytest.approx(
        ValidationAUC(other)(Model(Table(moved))), nan_ok=True
    )


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 15), st.integers(2, 60), st.integers(0, 99), st.integers(1, 70), st.integers(1, 2000),
    st.sampled_from(["test", "validation"]),
)  # fmt: skip
def test_tiles_of_the_catalogue_give_the_counts_of_the_whole(
    n_users: int, n_items: int, seed: int, width: int, block_bytes: int, part: str
) -> None:
    """Small whole numbers as factors: every score is exact, and many are tied within and across tiles."""
    dataset, rng = make(n_users, n_items, seed), np.random.default_rng(seed)
    users, items = (torch.as_tensor(rng.integers(-2, 3, (n, 3)), dtype=torch.float32) for n in (n_users, n_items))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(import_module("imgrec_lib.evaluation.ranking"), "TILE_ITEMS", width)
        tiled = evaluate(InnerProduct(users, items), dataset, seed=seed, part=part, block_bytes=block_bytes)
    dense = Table(users.numpy() @ items.numpy().T)
    whole = evaluate(dense, dataset, seed=seed, part=part)
    pd.testing.assert_frame_equal(tiled.per_user, whole.per_user)
    expected = brute_force(dataset, dense.scores.numpy(), "exact", part, seed)
    for name, each in expected.items():
        assert tiled.metrics["exact"][name] == (pytest.approx(np.mean(each)) if each else None)


def test_rounding_unties_no_items_of_other_tiles() -> None:
    """Each item occurs 70 times, in every tile: the copies of the held-out item tie with it, all others do not."""
    generator, kinds, copies = torch.Generator().manual_seed(0), 101, 70
    users, items = torch.randn(300, 67, generator=generator), torch.randn(kinds, 67, generator=generator)
    held = HeldOut(np.random.default_rng(0).integers(0, kinds * copies, 300))
    nobody = Interactions.from_pairs(np.array([], int), np.array([], int), 300, kinds * copies)
    dataset = Dataset(
        "copies", np.arange(300).astype(str), pd.DataFrame({"item": np.arange(kinds * copies).astype(str)}), nobody,
        HeldOut(np.full(300, -1)), held,
    )  # fmt: skip
    scorer = InnerProduct(users, items.repeat(copies, 1))
    per_user = evaluate(scorer, dataset, protocols=["exact"]).per_user
    assert (per_user["exact/tied"] == copies - 1).all()
    assert (per_user["exact/higher"] % copies == 0).all()


@pytest.mark.parametrize("n_items", [4, 50, 700])
def test_a_constant_scorer_is_chance_under_every_protocol(n_items: int) -> None:
    dataset = make(30, n_items, missing=0)
    metrics = evaluate(Table(np.full((30, n_items), 0.3)), dataset).metrics
    for name, values in metrics.items():
        assert (values["auc"], values["auc_strict"], values["tie_share"]) == (0.5, 0, 1), name
    counts = np.array([len(candidates(dataset, user, "test")) for user in range(30)])
    counts = counts[counts > 0]
    assert metrics["exact"]["hr@10"] == pytest.approx(np.minimum(1, 10 / (counts + 1)).mean())
    assert metrics["imgrec-100"]["hr@10"] == pytest.approx(10 / 101)


def test_popularity_ties_are_counted_and_cold_items_are_candidates() -> None:
    """Items sold 2, 1, 1, 0, 0 times; the user's held-out item is one of the cold ones."""
    train = Interactions.from_pairs(np.array([0, 1, 0, 1]), np.array([0, 0, 1, 2]), 3, 5)
    dataset = Dataset(
        "tiny", np.array(["a", "b", "c"]), pd.DataFrame({"item": list("vwxyz")}), train,
        HeldOut(np.array([-1, -1, -1])), HeldOut(np.array([3, -1, 1])),
    )  # fmt: skip
    scorer = InnerProduct(torch.ones(3, 1), torch.as_tensor(train.popularity, dtype=torch.float32).unsqueeze(1))
    result = evaluate(scorer, dataset, protocols=["exact"])
    values = result.metrics["exact"]
    # User a: candidates 2 and 4 (1 above, 1 tied). User c: candidates 0, 2, 3, 4 (1 above, 1 tied).
    assert values["auc"] == pytest.approx(((1 - 1.5 / 2) + (1 - 1.5 / 4)) / 2)
    assert values["auc_strict"] == pytest.approx((0 + 0.5) / 2)
    assert values["tie_share"] == pytest.approx((1 / 2 + 1 / 4) / 2)
    assert (values["cold_users"], values["cold_auc"], values["cold_auc_strict"]) == (1, 0.25, 0)
    assert result.per_user["cold"].tolist() == [True, False]
    assert result.per_user["item_popularity"].tolist() == [0, 1]
    assert result.per_user["history_length"].tolist() == [2, 0]
    json.dumps(result.metrics, allow_nan=False)


def test_without_cold_items_the_cold_metrics_are_none() -> None:
    train = Interactions.from_pairs(np.array([0, 1]), np.array([0, 1]), 2, 3)
    dataset = Dataset(
        "warm", np.array(["a", "b"]), pd.DataFrame({"item": list("xyz")}), train,
        HeldOut(np.array([-1, -1])), HeldOut(np.array([1, 0])),
    )  # fmt: skip
    values = evaluate(Table(np.eye(2, 3)), dataset).metrics["exact"]
    assert values["cold_auc"] is None and values["cold_users"] == 0 and values["users"] == 2
    json.dumps(values, allow_nan=False)


def test_a_user_without_candidates_is_left_out_and_counted() -> None:
    train = Interactions.from_pairs(np.array([0, 0, 1]), np.array([0, 1, 0]), 2, 3)
    dataset = Dataset(
        "full", np.array(["a", "b"]), pd.DataFrame({"item": list("xyz")}), train,
        HeldOut(np.array([-1, -1])), HeldOut(np.array([2, 2])),
    )  # fmt: skip
    result = evaluate(Table(np.array([[0.0, 0, 0], [0, 0, 1]])), dataset)
    for name in ("exact", "dvbpr-100", "sampled-500"):
        assert (result.metrics[name]["users"], result.metrics[name]["users_without_candidates"]) == (1, 1)
        assert result.metrics[name]["auc"] == 1
        assert np.isnan(user_metrics(result.per_user, name)["auc"][0])


def test_one_user_and_one_item() -> None:
    train = Interactions.from_pairs(np.array([], int), np.array([], int), 1, 1)
    dataset = Dataset(
        "one", np.array(["a"]), pd.DataFrame({"item": ["x"]}), train, HeldOut(np.array([-1])), HeldOut(np.array([0]))
    )
    metrics = evaluate(Table(np.zeros((1, 1))), dataset).metrics
    assert metrics["exact"]["auc"] is None and metrics["exact"]["users_without_candidates"] == 1
    assert metrics["imgrec-100"]["tie_share"] == 1  # only itself was drawn
    with pytest.raises(InputError, match="no user has a held-out item"):
        evaluate(Table(np.zeros((1, 1))), dataset, part="validation")
    with pytest.raises(InputError, match="validation item"):
        ValidationAUC(dataset)


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("protocols", [["exact"], ["imgrec-100"], list(PROTOCOLS)])
def test_scores_that_are_not_finite_are_refused(broken: float, protocols: list[str]) -> None:
    dataset = make(10, 8, missing=0)
    scores = coarse(dataset)
    scores[6, 2] = broken
    with pytest.raises(InputError, match="user u6 a score that is NaN or infinite"):
        evaluate(Table(scores), dataset, protocols=protocols)


def test_large_finite_scores_are_not_mistaken_for_infinite_ones() -> None:
    dataset = make(10, 8, missing=0)
    scores = coarse(dataset)
    huge = (scores * 2e37 + 2e38).astype(np.float32)
    assert evaluate(Table(huge), dataset).metrics == evaluate(Table(scores), dataset).metrics


def test_a_scorer_of_the_wrong_shape_is_refused() -> None:
    dataset = make(10, 8)
    with pytest.raises(ValueError, match="shape"):
        evaluate(Table(np.zeros((10, 7))), dataset)


def test_unknown_protocols_and_parts_are_sentences() -> None:
    dataset = make(10, 8)
    with pytest.raises(InputError, match=r"unknown evaluation protocol 'exakt'.*'exact'"):
        evaluate(Table(coarse(dataset)), dataset, protocols=["exakt"])
    with pytest.raises(InputError, match="unknown part"):
        evaluate(Table(coarse(dataset)), dataset, part="train")


def test_validation_auc_is_exact_and_blind_to_the_test_items() -> None:
    dataset = make(40, 30)
    scores = coarse(dataset)
    value = ValidationAUC(dataset)(Model(Table(scores)))
    assert value == pytest.approx(np.mean(brute_force(dataset, scores, "exact", "validation", 0)["auc"]))
    assert value == evaluate(Table(scores), dataset, protocols=["exact"], part="validation").metrics["exact"]["auc"]
    for items in (np.full(40, -1), np.roll(dataset.test.items, 1)):
        assert value == ValidationAUC(replace(dataset, test=HeldOut(items)))(Model(Table(scores)))
    model = Model(Table(scores))
    model.phases = (TrainSettings(choose_by="map@7"), TrainSettings(choose_by="map@7"))
    measured = ValidationMetrics(dataset)(model)
    assert measured["auc"] == value
    expected = evaluate(Table(scores), dataset, protocols=["exact"], part="validation", cutoffs=[10, 20, 7]).metrics
    assert measured.keys() >= {"map@7", "recall@20", "auc_strict"}
    assert measured.items() <= expected["exact"].items()
    held = vars(ValidationAUC(dataset)).values()
    assert not any(value is dataset or value is dataset.test.items for value in held)


def test_validation_on_a_sample_of_the_users() -> None:
    dataset = make(40, 30)
    model = Model(Table(coarse(dataset)))
    everybody = ValidationMetrics(dataset)(model)
    per_user = user_metrics(evaluate(model, dataset, protocols=["exact"], part="validation").per_user)
    validated = np.unique(dataset.validation.users)

    def sample(count: int) -> np.ndarray:
        model.phases = (TrainSettings(validation_users=count),)
        return np.unique(ValidationMetrics(dataset).ranked(model).users)

    for count in (len(validated), 1000):  # a sample of everybody is everybody
        assert sample(count).tolist() == validated.tolist() and ValidationMetrics(dataset)(model) == everybody
    few = sample(7)
    assert len(few) == 7 and set(few) <= set(validated)
    values = per_user[np.isin(validated, few)]
    measured = ValidationMetrics(dataset)(model)
    assert measured["auc"] == ValidationAUC(dataset)(model) == pytest.approx(values["auc"].mean())
    assert measured["ndcg@10"] == pytest.approx(values["ndcg@10"].mean())
    assert set(few) <= set(sample(9)) and sample(7).tolist() == few.tolist()


def test_models_are_served_at_the_held_out_time_and_keep_their_mode() -> None:
    dataset = make(10, 8)
    times: dict[str, Any] = {
        part: HeldOut(getattr(dataset, part).items, np.arange(10) + 100 * i)
        for i, part in enumerate(("validation", "test"))
    }
    dataset = replace(dataset, **times)
    model = Model(Table(coarse(dataset))).train()
    ValidationAUC(dataset)(model)
    evaluate(model, dataset)
    best_items(model, dataset, [0])
    assert model.training
    assert [training for training, _ in model.asked] == [False] * 3
    assert [None if t is None else t[0].item() for _, t in model.asked] == [0, 100, None]


def test_pairs_refuse_what_is_not_in_the_catalogue() -> None:
    scorer = InnerProduct(torch.ones(3, 2), torch.ones(4, 2))
    assert scorer.pairs(torch.tensor([2]), torch.tensor([[0, 3]])).tolist() == [[2, 2]]
    for user, item in ((3, 0), (-1, 0), (0, 4), (0, -1)):
        with pytest.raises(IndexError, match="there is no such user or item"):
            scorer.pairs(torch.tensor([user]), torch.tensor([[0, item]]))


def test_inner_product_pairs_and_blocks_give_the_same_metrics() -> None:
    dataset = make(60, 300, missing=0)
    generator = torch.Generator().manual_seed(0)
    scorer = InnerProduct(torch.randn(60, 16, generator=generator), torch.randn(300, 16, generator=generator))
    sampled = [name for name in PROTOCOLS if name != "exact"]
    alone, together = evaluate(scorer, dataset, protocols=sampled), evaluate(scorer, dataset)
    for name in sampled:
        assert alone.metrics[name] == pytest.approx(together.metrics[name], abs=1e-4)


def test_the_item_itself_ties_however_its_columns_round() -> None:
    """A scorer whose sums differ in the last bit from column to column."""

    class Jittery(Table):
        def pairs(self, users: Tensor, items: Tensor) -> Tensor:
            return super().pairs(users, items) * (1 + 1e-7 * torch.arange(items.shape[1]))

    dataset = make(30, 5, missing=0)
    scores = np.tile([5.0, 4, 3, 2, 1], (30, 1))
    exact = evaluate(Table(scores), dataset, protocols=["imgrec-100"])
    jittery = evaluate(Jittery(scores), dataset, protocols=["imgrec-100"])
    assert exact.metrics == jittery.metrics


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 10), st.integers(1, 30), st.integers(0, 99), st.booleans(), st.integers(1, 3000), st.data())
def test_recommendations_equal_a_stable_sort(
    n_users: int, n_items: int, seed: int, exclude: bool, block_bytes: int, data: st.DataObject
) -> None:
    dataset = make(n_users, n_items, seed)
    scores = coarse(dataset, seed) - 3  # negative scores, zeros and ties
    scores[scores == 0] *= np.where(np.arange((scores == 0).sum()) % 2, -1, 1)  # both zeros
    k = data.draw(st.integers(1, n_items + 3))
    users = data.draw(st.lists(st.integers(0, n_users - 1), max_size=5))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("imgrec_lib.evaluation.top.BLOCK_BYTES", block_bytes)
        items, values = best_items(Table(scores), dataset, users, k, exclude)
    assert items.shape == values.shape == (len(users), k)
    for row, user in enumerate(users):
        seen = set(dataset.train.of(user)) if exclude else set()
        expected = sorted((i for i in range(n_items) if i not in seen), key=lambda i: (-scores[user, i], i))[:k]
        assert items[row].tolist() == expected + [-1] * (k - len(expected))
        np.testing.assert_array_equal(values[row, : len(expected)], scores[user, expected])
        assert (values[row, len(expected) :] == -np.inf).all()
    from_training = best_items(Table(scores), dataset.training_data(), users, k, exclude)
    np.testing.assert_array_equal(items, from_training[0])


def test_recommendations_refuse_what_does_not_exist() -> None:
    dataset = make(10, 8)
    scorer = Table(coarse(dataset))
    with pytest.raises(InputError, match="user index 10 does not exist"):
        best_items(scorer, dataset, [3, 10])
    with pytest.raises(InputError, match="at least 1"):
        best_items(scorer, dataset, [0], 0)
    scorer.scores[4, 1] = np.nan
    with pytest.raises(InputError, match="u4"):
        best_items(scorer, dataset, range(10), 3)


def test_bands_partition_the_users() -> None:
    dataset = make(80, 40)
    result = evaluate(Table(coarse(dataset)), dataset)
    values = user_metrics(result.per_user).assign(popularity=result.per_user["item_popularity"])
    bands = popularity_bands(result.per_user, starts=(0, 1, 2, 8, 12))
    assert set(bands.index) <= {"0", "1", "2-7", "8-11", "12+"}
    assert bands["users"].sum() == result.metrics["exact"]["users"]
    for label, band in bands.iterrows():
        low, _, high = str(label).rstrip("+").partition("-")
        top = np.inf if str(label).endswith("+") else int(high or low)
        inside = values[values["popularity"].between(int(low), top)]
        assert band["auc"] == pytest.approx(inside["auc"].mean())
        assert band["hr@10"] == pytest.approx(inside["hr@10"].mean())
    assert history_bands(result.per_user, "sampled-500")["users"].sum() == result.metrics["sampled-500"]["users"]
    with pytest.raises(InputError, match="ascend"):
        history_bands(result.per_user, starts=(0, 2, 2))
    with pytest.raises(InputError, match="was not evaluated; these were: dvbpr-100, exact"):
        user_metrics(result.per_user, "sampled-100")


def test_counts_survive_a_file(tmp_path: Path) -> None:
    """Statistics are made from the stored per-user table."""
    dataset = make(30, 20)
    result = evaluate(Table(coarse(dataset)), dataset)
    result.per_user.to_parquet(tmp_path / "per_user.parquet", index=False)
    stored = pd.read_parquet(tmp_path / "per_user.parquet")
    assert user_metrics(stored)["ndcg@10"].mean() == pytest.approx(result.metrics["exact"]["ndcg@10"])


@pytest.mark.slow
def test_memory_is_bounded_by_the_block() -> None:
    """50,000 scores for each of 2,000 users are 400 MB; in blocks they need a few."""

    class Counting(InnerProduct):
        largest = 0

        def tile(self, users: Tensor, items: slice, out: Tensor | None = None) -> Tensor:
            scores = super().tile(users, items, out)
            type(self).largest = max(self.largest, scores.nbytes)
            return scores

    n_users, n_items = 2000, 50_000
    train = Interactions.from_pairs(np.arange(n_users), np.arange(n_users), n_users, n_items)
    dataset = Dataset(
        "wide", np.arange(n_users).astype(str), pd.DataFrame({"item": np.arange(n_items).astype(str)}), train,
        HeldOut(np.full(n_users, -1)), HeldOut(np.arange(n_users) + 7000),
    )  # fmt: skip
    scorer = Counting(torch.ones(n_users, 1), torch.arange(n_items, dtype=torch.float32).unsqueeze(1))
    values = evaluate(scorer, dataset, protocols=["exact"], block_bytes=2**20).metrics["exact"]
    assert 2**19 < Counting.largest <= 2**20
    below = np.arange(n_users) + 7000 - 1  # every item of lower index but the user's training item
    assert values["auc"] == pytest.approx((below / (n_items - 2)).mean())
