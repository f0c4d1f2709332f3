"""The plan of a matrix, with what the driver would have read of its data."""

from __future__ import annotations

from pathlib import Path

from imgrec_lib.matrix import Matrix, plan
from imgrec_lib.matrix.facts import Facts
from imgrec_lib.matrix.tasks import Plan

WARDROBE = {"wardrobe": Facts("0123", True)}


def planned(matrix: Matrix, folder: Path, only: dict[str, list[str]] | None = None) -> Plan:
    return plan(
        matrix, folder / "runs", folder / "reports", {name: WARDROBE["wardrobe"] for name in matrix.datasets}, only
    )
