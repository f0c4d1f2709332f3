"""Say whether two folders of runs hold the same results, digit by digit: for changes that shall change no number.

    python benchmarks/same_results.py runs-before runs-after

Runs are matched by dataset, model, profile, control and seed, and by the hyper-parameters that the first folder knows:
later versions may have further ones. Compared are the metrics of the test
and of the oracle, the validation, the learning curve (losses and validation AUC) and what was counted for each user.
The files are read as they are, without imgrec, so that both folders may come from different versions of it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd


def results(folder: Path) -> list[tuple[Path, dict[str, Any]]]:
    """The finished trials below a folder, each with its record."""
    found = []
    for path in sorted(folder.glob("**/run.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        if record.get("stage", "trial") == "trial":
            found.append((path.parent, record))
    return found


def same_run(before: dict[str, Any], after: dict[str, Any]) -> bool:
    """Whether two records are of the same run, as far as the first one says."""
    told_by = ("model", "profile", "seed")
    controls = [(record["features"] or {}).get("control", "") for record in (before, after)]
    return (
        all(before[key] == after[key] for key in told_by)
        and before["dataset"]["name"] == after["dataset"]["name"]
        and controls[0] == controls[1]
        and _contained(before["parameters"], after["parameters"])
    )


def difference(one: tuple[Path, dict[str, Any]], other: tuple[Path, dict[str, Any]]) -> str | None:
    """The first thing in which two runs differ; None where they are the same to the last digit."""
    (first, before), (second, after) = one, other
    for key in ("metrics", "oracle", "validation"):
        # Metrics that only the later version computes are no difference.
        if not _contained(before[key], after[key]):
            return f"{key}: {before[key]} became {after[key]}"
    columns = ["phase", "epoch", "loss", "validation_auc"]
    curves = [pd.read_csv(folder / "curve.csv")[columns] for folder in (first, second)]
    if not curves[0].equals(curves[1]):
        return "the learning curve"
    users = [pd.read_parquet(folder / "per_user.parquet") for folder in (first, second)]
    if not users[0].equals(users[1][list(users[0].columns)]):
        return "what was counted for each user"
    return None


def _contained(before: Any, after: Any) -> bool:
    if isinstance(before, dict) and isinstance(after, dict):
        return all(key in after and _contained(value, after[key]) for key, value in before.items())
    return bool(before == after)


def main() -> int:
    """Compare the two folders of the command line; 0 where all runs of the first are the same in the second."""
    before, after = (results(Path(folder)) for folder in sys.argv[1:3])
    different = 0
    for run in before:
        other = next((each for each in after if same_run(run[1], each[1])), None)
        what = "it is missing in the second folder" if other is None else difference(run, other)
        if what is not None:
            different += 1
            print(f"{run[0].name}: {what}")
    print(f"{len(before)} runs compared, {len(before) - different} the same to the last digit")
    return 1 if different or not before else 0


if __name__ == "__main__":
    sys.exit(main())
