"""Items as learnt: one function for report, explorer and notebooks, the same for every model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from toy import toy_data

from imgrec_lib.models import build_model, item_vectors, list_models
from imgrec_lib.models.base import InnerProduct


def test_an_offset_is_no_part_of_a_vector_and_columns_keep_their_places() -> None:
    users = torch.tensor([[1.0, 2.0, 0.0], [3.0, -1.0, 0.0]])
    items = torch.tensor([[0.5, 1.0, 7.0], [2.0, 0.0, 8.0], [1.0, 1.0, 9.0]])
    scorer = InnerProduct.with_item_offset(users, items, torch.tensor([10.0, 20.0, 30.0]))
    vectors = item_vectors(scorer)
    assert vectors is not None
    # The third column is 0 for every user, the fourth is the offset: neither says what a user likes.
    assert vectors.tolist() == [[0.5, 1.0, 0, 0], [2.0, 0.0, 0, 0], [1.0, 1.0, 0, 0]]


def test_scores_that_are_the_same_for_all_or_no_inner_product_have_no_vectors() -> None:
    class Other:
        def block(self, users: torch.Tensor) -> torch.Tensor:
            return torch.zeros(len(users), 3)

        def pairs(self, users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
            return torch.zeros(items.shape)

    assert item_vectors(InnerProduct(torch.ones(4, 1), torch.arange(3.0).unsqueeze(1))) is None
    assert item_vectors(Other()) is None


@pytest.mark.parametrize("model", [name for name, card in list_models().items() if "images" not in card.needs])
def test_differences_of_taste_are_products_with_the_vectors(model: str) -> None:
    """Two users' scores differ by <difference of the users, vectors of the items>: nothing but the vectors tells."""
    data = toy_data()
    torch.manual_seed(0)
    scorer = build_model(model, data, seed=0).scorer(torch.zeros(data.n_users, dtype=torch.int64))
    vectors = item_vectors(scorer)
    if vectors is None:
        return
    assert isinstance(scorer, InnerProduct) and vectors.shape == scorer.items.shape
    scores = scorer.block(torch.tensor([0, 1])).double()
    apart = (scorer.users[0] - scorer.users[1]).double() @ vectors.double().T
    np.testing.assert_allclose((scores[0] - scores[1]).numpy(), apart.numpy(), atol=1e-5)
