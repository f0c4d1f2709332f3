"""Every model of the registry shows what `conformance.py` asks; a new model is tested by its registry line alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from conformance import CARDS, EVERY_MODEL, TRAINED, TRAINED_MODEL

from imgrec_lib.models import model_card


@pytest.mark.slow
@pytest.mark.parametrize("name", CARDS)
@pytest.mark.parametrize("shows", EVERY_MODEL, ids=lambda shows: shows.__name__)
def test_a_model(shows: Callable[[str], None], name: str) -> None:
    shows(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("shows", TRAINED_MODEL, ids=lambda shows: shows.__name__)
def test_a_trained_model(shows: Callable[[str], None], name: str) -> None:
    shows(name)


def test_every_model_of_ours_that_is_trained_can_be_searched() -> None:
    """A space is optional for the models of others."""
    assert not [name for name in TRAINED if not model_card(name).space]
