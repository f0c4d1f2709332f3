"""A training whose result does not depend on the user says so: in a warning, in its record and in every table."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from toy import planted_dataset

from imgrec_lib import train_run
from imgrec_lib.evaluation import IMPERSONAL, personal_share
from imgrec_lib.features import Features
from imgrec_lib.models.base import InnerProduct
from imgrec_lib.results import Results


def scorer(scores: np.ndarray) -> InnerProduct:
    """The scorer of a (n_users, n_items) table."""
    values = torch.as_tensor(scores, dtype=torch.float32)
    return InnerProduct(torch.eye(len(values)), values.T.contiguous())


def test_the_share_by_hand() -> None:
    # Both users have deviation 1 about their means; the items' means over the users are 0, +-1 or in between.
    assert personal_share(scorer(np.array([[1, -1], [1, -1]])), 2) == pytest.approx(0, abs=1e-12)
    assert personal_share(scorer(np.array([[1, -1], [-1, 1]])), 2) == pytest.approx(1)
    # (1, 1, -1, -1) and (1, -1, 1, -1): means 1, 0, 0, -1, so each leaves 0, 1, 1, 0 squared.
    assert personal_share(scorer(np.array([[1, 1, -1, -1], [1, -1, 1, -1]])), 2) == pytest.approx(0.5)


def test_what_only_shifts_and_stretches_is_not_personal() -> None:
    rng = np.random.default_rng(0)
    popularity = rng.normal(size=50)
    same = rng.normal(size=(200, 1)) + rng.uniform(0.1, 9, (200, 1)) * popularity
    assert personal_share(scorer(same), 200) < 1e-9 < IMPERSONAL
    assert personal_share(scorer(np.ones((3, 4))), 3) == 0.0
    own = rng.normal(size=(200, 5000))
    assert personal_share(scorer(own), 200) == pytest.approx(1 - 1 / 64, abs=0.01)
    assert personal_share(scorer(0.1 * own + np.linspace(-2, 2, 5000)), 200) > IMPERSONAL


def test_the_literal_reading_of_the_paper_says_so(tmp_path: Path) -> None:
    dataset, values = planted_dataset()
    features = Features(values, {"backbone": "none"}, "f")
    options = {"epochs": 40, "batch_size": 64, "learning_rate": 3e-3}
    runs = []
    for profile in ("literal", "paper"):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run = train_run(
                dataset, "imgrec-ft", tmp_path / profile, profile=profile, features=features, parameters=options,
                progress=False,
            )  # fmt: skip
        said = [str(each.message) for each in caught if "the same for everybody" in str(each.message)]
        assert bool(said) == run.record.impersonal == (profile == "literal")
        runs.append(run)
    labels = [trial.label for trial in Results.of(runs).rows]
    assert [("the same ranking for everybody" in label) for label in labels] == ["literal" in label for label in labels]
    assert sum("literal" in label for label in labels) == 1


def test_what_is_not_trained_is_not_blamed(tmp_path: Path) -> None:
    dataset, _ = planted_dataset()
    run = train_run(dataset, "poprank", tmp_path / "run", progress=False)
    assert run.record.personal is None and not run.record.impersonal
