"""Tables 1 to 4 of the ImgRec paper from our runs, beside what the paper prints."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pandas as pd
import yaml
from annotated_types import MinLen

from imgrec_lib.data.dataset import Dataset
from imgrec_lib.data.statistics import dataset_table
from imgrec_lib.models import list_models
from imgrec_lib.results.results import Results
from imgrec_lib.results.tables import Measure, measured_table

PAPER = "paper"
"""Heading of the values that the paper printed: the only ones that do not come from our runs."""
DIFFERENCE = "ours less the paper's"


@dataclass(frozen=True)
class _PaperTable:
    """A table of results of the ImgRec paper (Elsayed, Brinkmeyer and Schmidt-Thieme 2022, arXiv 2205.02923).

    Attributes:
        title: its number and subject.
        protocol: the evaluation protocol that it reports.
        models: names of its models, in its order.
        published: by dataset and model, the AUC that was printed.
        note: what a reader of the published numbers must know.
    """

    title: str
    protocol: str
    models: list[str]
    published: dict[str, dict[str, float]]
    note: str = ""


def _read() -> tuple[tuple[_PaperTable, ...], dict[str, dict[str, int]]]:
    """`paper.yaml`: the tables, and by dataset what the paper's Table 1 prints of its size."""
    content = yaml.safe_load((Path(__file__).parent / "paper.yaml").read_text(encoding="utf-8"))
    return tuple(_PaperTable(**table) for table in content["tables"]), content["sizes"]


PAPER_TABLES, PAPER_SIZES = _read()


def sizes_table(groups: Annotated[Sequence[Results], MinLen(1)], datasets: Mapping[str, Dataset]) -> pd.DataFrame:
    """Table 1: the size of each dataset, and below those of the paper what it prints of them.

    Args:
        groups: the results of each dataset.
        datasets: the datasets that could be loaded, by fingerprint; of the others only what the records hold is shown.
    """
    rows = []
    for results in groups:
        record = results.dataset
        known = {
            "dataset": record.name,
            "users": record.users,
            "items": record.items,
            "training interactions": record.training_interactions,
        }
        loaded = datasets.get(record.fingerprint)
        rows.append(known if loaded is None else dataset_table(loaded).to_dict("records")[0])
        printed = paper_dataset(results)
        if printed is not None:
            rows.append({"dataset": f"{printed}, as the paper prints it", **PAPER_SIZES[printed]})
    return pd.DataFrame(rows).set_index("dataset")


def paper_dataset(results: Results) -> str | None:
    """The paper's name of the dataset, known by its users and items; None where the paper has nothing on it."""
    for name, sizes in PAPER_SIZES.items():
        if (results.dataset.users, results.dataset.items) == (sizes["users"], sizes["items"]):
            return name
    return None


def paper_tables(results: Results) -> dict[str, pd.DataFrame]:
    """Tables 2, 3 and 4 of the ImgRec paper from our runs.

    The paper's AUC counts a tie as lost, and so does the difference to it; the mid-rank AUC stands beside. On a dataset
    of the paper there are columns `PAPER` and `DIFFERENCE`, and rows of published models that have no run.

    Returns:
        By title; a table without any row is left out.
    """
    dataset = paper_dataset(results)
    tables = {}
    for table in PAPER_TABLES:
        measures = (
            Measure("strict AUC", table.protocol, "auc_strict"),
            Measure("AUC", table.protocol, "auc"),
        )
        published = table.published.get(dataset or "", {})
        parts, values = [], []
        for model in table.models:
            rows = results.of_model(model)
            if rows:
                parts.append(measured_table(rows, measures))
                # A control is not the published model: it has nothing to be measured against.
                values += [math.nan if row.is_control else published.get(model, math.nan) for row in rows]
            elif model in published:
                card = list_models().get(model)
                parts.append(_blank(card.title if card else model, measures))
                values.append(published[model])
        if not parts:
            continue
        frame = pd.concat(parts).rename_axis("model")
        if published:
            frame[PAPER, ""] = values
            frame[DIFFERENCE, "difference"] = frame["strict AUC", "mean"] - frame[PAPER, ""]
        known = measured_table((), measures, oracle=results.oracle)
        tables[table.title] = pd.concat([frame, known]).rename_axis("model") if len(known) else frame
    return tables


def _blank(label: str, measures: Sequence[Measure]) -> pd.DataFrame:
    columns = [("trials", "")] + [(m.heading, statistic) for m in measures for statistic in ("mean", "sd")]
    row = [0] + [math.nan] * (len(columns) - 1)
    return pd.DataFrame([row], pd.Index([label], name="model"), pd.MultiIndex.from_tuples(columns))
