"""Controls take the pictures away from their items, and say so."""

from __future__ import annotations

import numpy as np
import pytest

from imgrec_lib.errors import InputError
from imgrec_lib.features import Features
from imgrec_lib.features.controls import with_control


@pytest.mark.parametrize("n_items", [2, 3, 50])
def test_every_item_gets_the_picture_of_another_one(n_items: int) -> None:
    values = np.arange(n_items, dtype=np.float32)[:, None]
    features = Features(values, {"backbone": "x"}, "digits")
    shuffled = with_control(features, "shuffled pictures")
    assert sorted(shuffled.values[:, 0]) == sorted(values[:, 0])
    assert (shuffled.values != values).all()
    assert shuffled.description["control"] == "shuffled pictures"
    assert shuffled.fingerprint != features.fingerprint
    assert with_control(features, None) is features
    with pytest.raises(InputError, match="did you mean 'shuffled pictures'"):
        with_control(features, "shuffled picture")
