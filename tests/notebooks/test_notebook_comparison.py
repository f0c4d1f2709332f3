"""The comparison of notebooks' outputs fails where it must."""

from __future__ import annotations

import base64
import io

import matplotlib.pyplot as plt
import numpy as np
import pytest
from notebook_comparison import Tolerant, alike, same


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
    assert (Tolerant(text) == other) is equal
    assert (Tolerant(text) != other) is not equal


def figure(heights: list[float], colour: str = "C0") -> str:
    """A bar chart, as a notebook keeps it."""
    drawing, axes = plt.subplots(figsize=(4, 3))
    axes.bar(np.arange(len(heights)), heights, color=colour)
    axes.set_ylim(0, 1)
    file = io.BytesIO()
    drawing.savefig(file, dpi=100)
    plt.close(drawing)
    return base64.b64encode(file.getvalue()).decode()


def test_figures_are_compared_from_afar() -> None:
    reference = figure([0.5, 0.7, 0.6])
    for other, equal in [
        (figure([0.51, 0.69, 0.6]), True),  # as another processor might draw it
        (figure([0.5, 0.1, 0.6]), False),
        (figure([0.5]), False),
        (figure([0.5, 0.7, 0.6], colour="white"), False),
    ]:
        assert alike(reference, other) is equal
        assert (Tolerant(reference) == other) is equal
    assert Tolerant("no figure") != reference
