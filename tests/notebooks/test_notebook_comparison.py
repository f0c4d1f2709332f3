"""The comparison of notebooks' outputs fails where it must."""

from __future__ import annotations

import pytest
from notebook_comparison import TolerantText, same


@pytest.mark.parametrize(
    "text, other, equal",
    [
        ("AUC 0.7512", "AUC 0.7498", True),
        ("AUC 0.7512", "AUC 0.6512", False),
        ("AUC 0.7512", "HR 0.7512", False),
        ("300 users", "301 users", False),
        ("1200.0 s", "1230.5 s", True),
        ("-0.20", "0.20", False),
        ("0.75 ± 0.01", "0.76 ± 0.02", True),
        ("0.75 0.80", "0.75", False),
        ("version 2.14.1", "version 2.14.2", False),
        ("1e-05", "1e-04", False),
    ],
)
def test_numbers_are_compared_with_a_tolerance_and_words_exactly(text: str, other: str, equal: bool) -> None:
    assert same(text, other) is equal
    assert (TolerantText(text) == other) is equal
    assert (TolerantText(text) != other) is not equal
