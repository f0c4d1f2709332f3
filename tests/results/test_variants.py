"""Variants of one product: which held-out items are some, against a plain loop, and the figures without their users."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from records import write_run
from toy import planted_dataset

from imgrec_lib.data.dataset import Columns, Dataset, HeldOut
from imgrec_lib.evaluation import user_metrics
from imgrec_lib.report import write_report
from imgrec_lib.results import Results, caption, variants_table


@pytest.fixture(scope="module")
def shop() -> Dataset:
    return planted_dataset(n_users=40, n_items=50)[0]


def by_loop(dataset: Dataset, held: HeldOut) -> list[bool]:
    group = dataset.items[Columns.GROUP].tolist()
    return [
        any(group[bought] == group[item] for bought in dataset.train.of(user))
        for user, item in zip(held.users.tolist(), held.flat.tolist(), strict=True)
    ]


def without_groups(dataset: Dataset) -> Dataset:
    return Dataset(
        dataset.name, dataset.user_ids, dataset.items.drop(columns=Columns.GROUP), dataset.train, dataset.validation,
        dataset.test,
    )  # fmt: skip


def test_a_variant_shares_its_group_with_a_purchase(shop: Dataset) -> None:
    for held in (shop.test, shop.validation):
        found = shop.bought_variants(held)
        assert found is not None and found.tolist() == by_loop(shop, held) and 0 < found.sum() < len(found)
    assert without_groups(shop).bought_variants(shop.test) is None


@pytest.mark.slow
def test_figures_with_and_without_users_of_variants(shop: Dataset, tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / f"{model}{seed}", shop, model, seed) for model in ("bpr-mf", "vbpr") for seed in (0, 1)
    ]
    table = variants_table(Results.of(runs))
    assert table is not None
    variant = np.array(by_loop(shop, shop.test))
    for model, title in (("bpr-mf", "BPR-MF"), ("vbpr", "VBPR")):
        own = [run.per_user for run in runs if run.record.model == model]
        for heading, metric in (("AUC", "auc"), ("HR@10", "hr@10"), ("NDCG@10", "ndcg@10")):
            values = [user_metrics(users)[metric].to_numpy() for users in own]
            for column, chosen in ((heading, slice(None)), (f"{heading} without variants", ~variant)):
                means = [float(each[chosen].mean()) for each in values]
                assert table[column, "mean"].to_dict()[title] == pytest.approx(np.mean(means))
                assert table[column, "sd"].to_dict()[title] == pytest.approx(np.std(means, ddof=1))
    sentence = f"{variant.mean():.1%} of the held-out items are variants of something that their user has bought"
    assert sentence in caption(Results.of(runs))
    page = write_report(tmp_path, tmp_path / "report", pictures=False, progress=False).read_text()
    assert sentence in page and "HR@10 without variants" in page


def test_runs_that_know_no_groups_say_nothing(shop: Dataset, tmp_path: Path) -> None:
    run = write_run(tmp_path / "plain", without_groups(shop))
    assert variants_table(Results.of([run])) is None and "variants" not in caption(Results.of([run]))
    # Nor is there a table where every user's held-out item is a variant: nobody would be left.
    run = write_run(tmp_path / "all", shop)
    users = pd.read_parquet(run.folder / "per_user.parquet").assign(variant=True)
    users.to_parquet(run.folder / "per_user.parquet", index=False)
    assert variants_table(Results.of([run])) is None
