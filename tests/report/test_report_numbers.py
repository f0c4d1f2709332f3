"""Every number of every table, computed again from the records and per_user.parquet with numpy and pandas alone."""

from __future__ import annotations

import re
from collections.abc import Hashable
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from narrow import metric_value, not_none
from records import FEATURES, with_cold_items, write_run
from scipy import stats
from toy import planted_dataset

from imgrec_lib.report import write_report
from imgrec_lib.runs import DatasetRecord, Record, Validation, open_run

PRINTED = {  # Elsayed et al. 2022, tables 2 to 4, Amazon Fashion
    "Table 2": {"PopRank": 0.5849, "WARP": 0.6065, "BPR-MF": 0.6278, "FM-ID": 0.7093, "FM-visual": 0.7093,
                "VisRank": 0.6839, "VBPR": 0.7479, "DVBPR": 0.7964, "ImgRec-EtE": 0.8250},
    "Table 3": {"SAERS": 0.816, "ImgRec-EtE": 0.825},
    "Table 4": {"ImgRec-Dir": 0.7770, "ImgRec-FT": 0.8090, "ImgRec-EtE": 0.8250},
}  # fmt: skip
ORACLE = "Oracle (the simulated tastes; the ceiling)"
SHOP, AMAZON = "planted (60 users, 70 items)", "fashion (45,184 users, 166,270 items)"
ROWS = {
    SHOP: {"PopRank": "pop", "BPR-MF": "bpr", "VBPR": "vbpr", "VBPR (shuffled pictures)": "control"},
    AMAZON: {"BPR-MF": "amazon-bpr", "ImgRec-FT": "amazon-ft", "ImgRec-FT (shuffled pictures)": "amazon-control"},
}
GRID = {(0.01, 4): "grid-a", (0.01, 8): "grid-b", (0.1, 4): "grid-c", (0.1, 8): "grid-d"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two datasets, one with the sizes of Amazon Fashion; a control, an oracle, a grid, different numbers of trials."""
    root = tmp_path_factory.mktemp("runs")
    shop = with_cold_items(planted_dataset(n_users=60, n_items=70)[0])
    amazon = DatasetRecord("fashion", "f" * 16, 45_184, 166_270, 267_635, {"kind": "published"})
    shuffled: dict[str, Any] = {"features": FEATURES | {"control": "shuffled pictures"}}
    for seed in range(3):
        write_run(root / f"pop-{seed}", shop, "poprank", seed, popularity=True, epochs=0, oracle=True)
        write_run(root / f"bpr-{seed}", shop, "bpr-mf", seed, oracle=True)
        write_run(root / f"vbpr-{seed}", shop, "vbpr", seed, oracle=True, epochs=2 + seed)
    for seed in range(2):
        write_run(root / f"control-{seed}", shop, "vbpr", 10 + seed, parameters={"factors": 4}, oracle=True, **shuffled)
        write_run(root / f"amazon-bpr-{seed}", shop, "bpr-mf", seed, dataset=amazon)
        write_run(root / f"amazon-ft-{seed}", shop, "imgrec-ft", seed, dataset=amazon)
        write_run(
            root / f"amazon-control-{seed}",
            shop,
            "imgrec-ft",
            seed,
            dataset=amazon,
            parameters={"factors": 4},
            **shuffled,
        )
        for (rate, factors), name in GRID.items():
            write_run(
                root / f"{name}-{seed}", shop, "bpr-mf", seed, parameters={"factors": factors}, oracle=True,
                phases=[{"learning_rate": rate, "epochs": 100}], stage="search", metrics={},
                validation=Validation(rate + factors / 100 + seed / 1000, 1, 1),
            )  # fmt: skip
    return root


@cache
def records(folder: Path, name: str) -> list[tuple[Record, pd.DataFrame]]:
    found = [path for path in sorted(folder.iterdir()) if re.fullmatch(rf"{name}-\d", path.name)]
    assert found, name
    return [(open_run(f).record, pd.read_parquet(f / "per_user.parquet")) for f in found]


def values_of(users: pd.DataFrame, protocol: str, metric: str) -> pd.Series:
    """A metric of each user from the three counts, written out."""
    higher, tied, candidates = (users[f"{protocol}/{kind}"] for kind in ("higher", "tied", "candidates"))
    if metric == "auc":
        return (candidates - higher - 0.5 * tied) / candidates
    if metric == "auc_strict":
        return (candidates - higher - tied) / candidates
    if metric == "tie_share":
        return tied / candidates
    kind, k = metric.split("@")
    # What a user's one held-out item gains at a place of the list.
    of_place = {
        "hr": lambda place: 1.0, "recall": lambda place: 1.0, "precision": lambda place: 1 / int(k),
        "mrr": lambda place: 1 / (place + 1), "map": lambda place: 1 / (place + 1),
        "ndcg": lambda place: 1 / np.log2(place + 2),
    }[kind]  # fmt: skip
    gain = np.array([of_place(place) for place in range(int(k))] + [0.0] * 600)
    # The held-out item may stand anywhere among those it is tied with.
    return pd.Series([gain[h : h + t + 1].mean() for h, t in zip(higher, tied, strict=True)], users.index)


def statistic_of(samples: list[float], statistic: str) -> float:
    return float(np.mean(samples)) if statistic == "mean" else float(np.std(samples, ddof=1))


def measured(heading: str) -> tuple[str, str]:
    """Protocol and metric that a heading names, whatever the table."""
    name, _, protocol = heading.removeprefix("cold ").removesuffix(" without variants").partition(", ")
    if name in ("exact", "dvbpr-100", "imgrec-100", "sampled-500"):
        return name, "auc_strict" if protocol == "strict" else "auc"
    metrics = {"AUC": "auc", "strict AUC": "auc_strict"}
    if re.fullmatch(r"(HR|recall|precision|MRR|MAP|NDCG)@(10|20)", name):
        return protocol or "exact", name.lower()
    return protocol or "exact", metrics[name]


def expected(folder: Path, line: dict[Hashable, Any]) -> Any:
    """The number that belongs into a cell; None for a text. An unknown table or column is a KeyError."""
    dataset, table, row, column, statistic = (line[k] for k in ("dataset", "table", "row", "column", "statistic"))
    if table == "Table 1: data sets":
        if row.endswith(", as the paper prints it"):
            return {"users": 45_184, "items": 166_270, "interactions": 358_003}.get(column, np.nan)
        record = records(folder, "bpr" if row == "planted" else "amazon-bpr")[0][0].dataset
        return float(getattr(record, column.replace(" ", "_"), np.nan))
    if table == "Every pair, in numbers":
        better, worse = row.split(" less ")
        if column == "corrected p":
            return pytest.approx(corrected(folder, dataset)[frozenset((better, worse))], abs=0.08)
        return difference(folder, ROWS[dataset][better], ROWS[dataset][worse], statistic, column)
    if table.startswith("Search of BPR-MF"):
        order = sorted(GRID, key=lambda setting: -(setting[0] + setting[1] / 100))
        setting = order[int(row) - 1]
        scores = [not_none(record.validation.auc) for record, _ in records(folder, GRID[setting])]
        plain = {"factors": setting[1], "learning rate": setting[0], "trials": 2}
        return plain[column] if column in plain else statistic_of(scores, statistic)
    paper = table[:7] if table.startswith("Table ") else ""
    if column == "paper":
        return PRINTED[paper].get(row, np.nan)
    if row not in ROWS[dataset] and row != ORACLE:
        assert row in PRINTED[paper]  # a published model without a run
        return 0.0 if column == "trials" else np.nan
    if column == "settings":
        return None
    listed = re.fullmatch(r"(coverage|Gini|novelty|popularity|category diversity|visual diversity)@(10|20)", column)
    if listed and row != ORACLE:
        name, runs = column.lower().replace(" ", "_"), records(folder, ROWS[dataset][row])
        return float(np.mean([float(record.metrics["exact"][name] or 0) for record, _ in runs]))
    if column.startswith("AUC against "):
        other = column.removeprefix("AUC against ")
        if row in (ORACLE, other):
            return float(False) if statistic == "holds" else np.nan
        return difference(folder, ROWS[dataset][row], ROWS[dataset][other], statistic)
    runs = records(folder, ROWS[dataset].get(row, "(pop|bpr|vbpr|control)"))
    if row == ORACLE:
        # Of each seed the oracle's metrics are the same in every run; they have no users of their own.
        known = {record.seed: record.oracle for record, _ in runs}
        if column == "trials":
            return float(len(known))
        if column in ("tied candidates, share", "cold test items"):
            return np.nan
        if listed:
            name = column.lower().replace(" ", "_")
            return float(np.mean([float(each["exact"][name] or 0) for each in known.values() if each is not None]))
        if column == "AUC of other items":
            warm = []
            for each in known.values():
                names = ("auc", "users", "cold_auc", "cold_users")
                auc, users, cold_auc, cold_users = (metric_value(each, "exact", name) for name in names)
                warm.append((auc * users - cold_auc * cold_users) / (users - cold_users))
            return statistic_of(warm, statistic)
        protocol, metric = measured(column) if not paper else ("", {"AUC": "auc", "strict AUC": "auc_strict"}[column])
        protocol = {"Table 2": "imgrec-100", "Table 3": "sampled-500", "Table 4": "imgrec-100", "": protocol}[paper]
        metric = f"cold_{metric}" if column.startswith("cold ") else metric
        return statistic_of([metric_value(each, protocol, metric) for each in known.values()], statistic)
    if column == "trials":
        return float(len(runs))
    if table == "Cost, in numbers" and column != "AUC":
        return cost(runs, column)
    band = re.fullmatch(r"(\d+)(?:-(\d+)|(\+))? \(([\d,]+) users?\)", column)
    if band:
        by = "item_popularity" if "popularity" in table else "history_length"
        low, high = int(band[1]), np.inf if band[3] else float(band[2] or band[1])
        inside = [users[users[by].between(low, high)] for _, users in runs]
        assert all(len(each) == int(band[4].replace(",", "")) for each in inside)
        return statistic_of([values_of(each, "exact", "auc").mean() for each in inside], statistic)
    if column == "tied candidates, share":
        return float(np.mean([values_of(users, "exact", "tie_share").mean() for _, users in runs]))
    if column == "cold test items":
        return float(np.mean([(users["item_popularity"] == 0).sum() for _, users in runs]))
    if column == "AUC of other items":
        warm = [values_of(users[users["item_popularity"] > 0], "exact", "auc").mean() for _, users in runs]
        return statistic_of(warm, statistic)
    if paper:
        protocol = "sampled-500" if paper == "Table 3" else "imgrec-100"
        if column == "ours less the paper's":
            strict = np.mean([values_of(users, protocol, "auc_strict").mean() for _, users in runs])
            return float(strict - PRINTED[paper].get(row, np.nan))
        metric = {"AUC": "auc", "strict AUC": "auc_strict"}[column]
    else:
        protocol, metric = measured(column)
    chosen = [users[users["item_popularity"] == 0] if column.startswith("cold ") else users for _, users in runs]
    if column.endswith(" without variants"):
        chosen = [users[~users["variant"]] for users in chosen]
    return statistic_of([values_of(users, protocol, metric).mean() for users in chosen], statistic)


@cache
def of_users(folder: Path, name: str, heading: str = "AUC") -> pd.Series:
    """AUC, HR@10 or the AUC of cold items of each user, the mean of the trials."""
    each = []
    for _, users in records(folder, name):
        chosen = users[users["cold"]] if heading.startswith("cold") else users
        values = values_of(chosen, "exact", "hr@10" if heading.startswith("HR@10") else "auc")
        each.append(values.set_axis(chosen["user"]))
    return pd.concat(each, axis=1).mean(axis=1)


def difference(folder: Path, first: str, second: str, statistic: str, heading: str = "AUC") -> Any:
    """Mean, interval by the normal approximation, and whether a paired difference holds."""
    apart = of_users(folder, first, heading) - of_users(folder, second, heading)
    error = apart.std(ddof=0) / len(apart) ** 0.5
    if statistic == "difference":
        return float(apart.mean())
    if statistic in ("low", "high"):
        return pytest.approx(apart.mean() + {"low": -1.96, "high": 1.96}[statistic] * error, abs=0.2 * error)
    raw = 2 * stats.norm.sf(abs(apart.mean()) / error)
    assert statistic == "holds"  # certain only far from the threshold
    return 1.0 if raw * 100 < 0.05 else 0.0 if raw > 0.1 else None


@cache
def corrected(folder: Path, dataset: str) -> dict[frozenset[str], float]:
    """Normal p-values of all pairs of a dataset, corrected by Holm's steps."""
    users = {label: of_users(folder, name) for label, name in ROWS[dataset].items()}
    raw = {}
    for first, second in combinations(users, 2):
        apart = users[first] - users[second]
        raw[frozenset((first, second))] = 2 * stats.norm.sf(abs(apart.mean()) / apart.std(ddof=0) * len(apart) ** 0.5)
    found, least = {}, 0.0
    for step, pair in enumerate(sorted(raw, key=raw.__getitem__)):
        least = max(least, min(1.0, float(raw[pair]) * (len(raw) - step)))
        found[pair] = least
    return found


def cost(runs: list[tuple[Record, pd.DataFrame]], column: str) -> float | None:
    if column == "device":
        return None
    if column == "peak memory, MiB":
        return max(record.cost.peak_memory_bytes or 0 for record, _ in runs) / 2**20
    keys = {
        "seconds per epoch": "seconds_per_epoch", "epochs": "epochs", "seconds with validation": "seconds_fit",
        "seconds of evaluation": "seconds_evaluation", "interactions per second": "interactions_per_second",
        "parameters": "parameters",
    }  # fmt: skip
    values = [getattr(record.cost, keys[column]) for record, _ in runs]
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else np.nan


@pytest.fixture(scope="module")
def report(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(folder, tmp_path_factory.mktemp("report"), progress=False).parent


@pytest.mark.slow
def test_every_number_of_every_table(folder: Path, report: Path) -> None:
    lines = pd.read_csv(report / "tables.csv", keep_default_na=False).to_dict("records")
    checked: dict[str, int] = {}
    for line in lines:
        number = expected(folder, line)
        if number is None:
            continue
        text = {"": "nan", "True": "1", "False": "0"}.get(line["value"], line["value"])
        if isinstance(number, float) and np.isnan(number):
            assert text == "nan", line
        elif isinstance(number, float | int):
            assert float(text) == pytest.approx(number, abs=1e-9), line
        else:
            assert float(text) == number, line
        checked[line["table"]] = checked.get(line["table"], 0) + 1
    assert len(checked) == 16 and min(checked.values()) >= 8, checked
    # The other files hold the same numbers: each table's own CSV, and its Markdown as printed.
    for path in (report / "tables").glob("*.csv"):
        own = path.with_suffix(".md").read_text().splitlines()
        for row, printed in zip(pd.read_csv(path, index_col=0).to_dict("records"), own[2:], strict=True):
            for name, value in row.items():
                if str(name).endswith(" mean") and not np.isnan(value):
                    assert f"{value:.4f}" in printed, (path.name, name)


def test_the_numbers_of_a_grid_stay_out_of_the_tables_of_results(report: Path) -> None:
    table = pd.read_csv(report / "tables.csv", keep_default_na=False)
    labels = set(table[(table["table"] == "Results") & (table["dataset"] == SHOP)]["row"])
    assert labels == {*ROWS[SHOP], ORACLE}
    page = (report / "index.html").read_text()
    assert "Search of BPR-MF" in page and all(f"{name}-0" in page for name in GRID.values())
