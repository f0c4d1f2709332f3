"""Lists of other programs, measured on the split of our runs, and kept as a record beside them."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from imgrec_lib.data.columns import rows_in_words
from imgrec_lib.data.dataset import Columns, Dataset
from imgrec_lib.errors import InputError, shown, tell
from imgrec_lib.evaluation import Evaluation
from imgrec_lib.evaluation.evaluate import CUTOFFS, Cutoffs
from imgrec_lib.evaluation.given import Listed, evaluate_listed
from imgrec_lib.evaluation.protocols import PROTOCOLS, owned_items
from imgrec_lib.files import fingerprint, make_folder, replacing, write_json
from imgrec_lib.models.base import Recommender
from imgrec_lib.request import Request
from imgrec_lib.runs import Cost, DatasetRecord, Record, Run, Validation, oracle_metrics
from imgrec_lib.serving.ids import pairs_of

FILE = "lists.parquet"
LOADED = ("dataset", "root", "dataset_options", "backbone", "weights", "feature_options", "feature_files")
"""What of a request a record of lists keeps: by what the explorer loads the data and the looks of the items."""
RANKS = ("rank", "position", "place")
SCORES = ("score", "prediction", "estimate", "relevance", "weight")


def evaluate_lists(
    lists: Any,
    dataset: Dataset,
    *,
    part: str = "test",
    cutoffs: Cutoffs = CUTOFFS,
    features: np.ndarray | None = None,
) -> Evaluation:
    """Evaluate the lists of any other program on a dataset's split, under the protocol `exact`.

    Args:
        lists: a DataFrame (of pandas, polars or Arrow) or file with the columns `user`, `item` and `rank` (1 is the
            best) or `score` (more is better; equal scores count as ties). Where it has both, the rank decides.
        dataset: the dataset, with the same ids.
        part, cutoffs, features: see `evaluate`.

    Returns:
        As `evaluate`. Metrics at cut-offs beyond the longest list are None, and so is AUC unless every user with a
        held-out item has all candidates in the list. A user without a list has found nothing.

    Raises:
        InputError: the table cannot be read, lacks a column, has a rank or score that is no number, or names no user or
            no item of the dataset; see also `evaluate`.

    Warns of users and items that the dataset does not have, items that a user has twice (the better place counts) and
    items that a user owns, which no list may hold: they are taken out, and those behind them move up. Warns also of
    users with a held-out item who have no list.

    Example:
        >>> import pandas as pd
        >>> from imgrec_lib import evaluate_lists, load_dataset
        >>> dataset = load_dataset("wardrobe", n_users=40, n_items=50, image_size=32, progress=False)
        >>> lists = pd.DataFrame([(user, f"item-{i:04}", i) for user in dataset.user_ids for i in range(1, 11)])
        >>> found = evaluate_lists(lists.set_axis(["user", "item", "rank"], axis=1), dataset)
        >>> found.metrics["exact"]["auc"] is None, found.metrics["exact"]["coverage@10"] <= 0.2
        (True, True)
    """
    listed, longest = _read(lists, dataset, part)
    return evaluate_listed(
        listed, dataset, longest=longest, part=part, cutoffs=_measured(cutoffs, longest), features=features
    )


def compare_lists(
    lists: Any,
    dataset: Dataset,
    out: Path,
    *,
    title: str,
    request: Request | None = None,
    cutoffs: Cutoffs = CUTOFFS,
    features: np.ndarray | None = None,
) -> Run:
    """Evaluate the lists of another program on the test items, and keep them as a row of reports and of the explorer.

    Args:
        lists, dataset, cutoffs, features: see `evaluate_lists`.
        out: the record's folder, among those of the runs; a record of lists that is there is replaced.
        title: what tables call the program.
        request: how the dataset is loaded, for the explorer, and the `seed` of the program, whose lists of several
            seeds are trials of one row.

    Returns:
        A run of the stage "lists": it has metrics, and no model.

    Raises:
        InputError: see `evaluate_lists`; the folder holds a run of another kind; no title.

    Example:
        >>> import pandas as pd
        >>> from pathlib import Path
        >>> from imgrec_lib import compare_lists, load_dataset
        >>> dataset = load_dataset("wardrobe", n_users=40, n_items=50, image_size=32, progress=False)
        >>> lists = pd.DataFrame({"user": dataset.user_ids, "item": "item-0003", "score": 1.0})
        >>> compare_lists(lists, dataset, Path("runs/other"), title="Other").record.stage
        'lists'
    """
    out, seed = Path(out), 0 if request is None else request.seed
    if not title.strip():
        raise InputError("lists from elsewhere need a title: name the program that made them.")
    if any((out / name).exists() for name in ("run.json", "training.safetensors")) and not (out / FILE).exists():
        raise InputError(f"{out} holds a run of imgrec: choose another folder.")
    began = time.perf_counter()
    listed, longest = _read(lists, dataset, "test")
    evaluation = evaluate_listed(
        listed, dataset, longest=longest, cutoffs=_measured(cutoffs, longest), features=features
    )
    seconds = time.perf_counter() - began
    asked = {} if request is None else request.to_json()
    model = f"lists of {title}"
    record = Record(
        model=model,
        profile="default",
        parameters={},
        phases=[],
        seed=seed,
        dataset=DatasetRecord.of(dataset),
        features=None,
        identity=fingerprint(model, seed, dataset.fingerprint, listed.users, listed.items, listed.values),
        title=title,
        family="elsewhere",
        fidelity="elsewhere",
        stage="lists",
        requested={name: asked[name] for name in LOADED if name in asked}
        | ({"lists": str(Path(lists).absolute())} if isinstance(lists, str | Path) else {}),
        metrics={name: {} for name in PROTOCOLS} | evaluation.metrics,
        oracle=oracle_metrics(dataset, seed),
        validation=Validation(None, 0, 0),
        cost=Cost(0, 0.0, None, 0.0, seconds, 0.0, 0, 0),
        device="elsewhere",
        versions={"python": platform.python_version(), "imgrec": version("imgrec")},
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    make_folder(out)
    (out / "run.json").unlink(missing_ok=True)
    table = pd.DataFrame(
        {
            "user": dataset.user_ids[listed.users],
            "item": dataset.items[Columns.ITEM].to_numpy()[listed.items],
            "value": listed.values,
        }
    )
    for name, content in ((FILE, table), ("per_user.parquet", evaluation.per_user)):
        with replacing(out / name) as temporary:
            content.to_parquet(temporary, index=False)
    write_json(out / "run.json", record.to_json())
    return Run(out, record)


class ListedItems(Recommender):
    """Lists in the place of a model: an item that is not in a user's list has the score minus infinity.

    Args:
        listed: the lists.
        n_items: size of the catalogue.
    """

    def __init__(self, listed: Listed, n_users: int, n_items: int) -> None:
        super().__init__()
        listed = listed.in_order()
        self.n_items, self.items, self.values = n_items, listed.items, listed.values
        self.ends = np.cumsum(listed.lengths(n_users))

    def scorer(self, times: Tensor | None = None) -> ListedItems:
        return self

    def block(self, users: Tensor) -> Tensor:
        """See `Scorer.block`."""
        scores = np.full((len(users), self.n_items), -np.inf, np.float32)
        for row, user in enumerate(users.tolist()):
            own = slice(self.ends[user - 1] if user else 0, self.ends[user])
            scores[row, self.items[own]] = self.values[own]
        return torch.from_numpy(scores)

    def pairs(self, users: Tensor, items: Tensor) -> Tensor:
        """See `Scorer.pairs`."""
        return self.block(users).gather(1, items)


def open_lists(run: Run, dataset: Dataset) -> ListedItems:
    """The lists that `compare_lists` kept.

    Raises:
        InputError: the file is missing or damaged, or the dataset has changed since.
    """
    if run.record.dataset.fingerprint != dataset.fingerprint:
        raise InputError(
            f"the lists {run.name} were compared on {run.record.dataset.name!r} with other data than it has now: "
            f"{run.record.dataset.changes(dataset)}. Load the data as they were then, or compare again."
        )
    try:
        table = pd.read_parquet(run.folder / FILE)
        users, items = _places(table, dataset)
        values = table["value"].to_numpy(np.float64)
    except Exception as error:  # the engines of pandas raise many kinds of exception on damaged files
        raise InputError(f"{run.folder / FILE} is missing or damaged ({error}): compare the lists again.") from None
    return ListedItems(Listed(users, items, values), dataset.n_users, dataset.n_items)


def _measured(cutoffs: Sequence[int], longest: int) -> Sequence[int]:
    """The cut-offs, and for lists that are shorter than all of them their own length too."""
    return cutoffs if any(k <= longest for k in cutoffs) else (longest, *cutoffs)


def _places(table: pd.DataFrame, dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Where users and items of a table stand in the dataset; -1 for those that it does not have."""
    users = pd.Index(dataset.user_ids.astype(str)).get_indexer(pd.Index(table["user"]))
    items = pd.Index(dataset.items[Columns.ITEM].astype(str)).get_indexer(pd.Index(table["item"]))
    return users.astype(np.int64), items.astype(np.int64)


def _read(lists: Any, dataset: Dataset, part: str) -> tuple[Listed, int]:
    """The lists without what they may not hold, and the length of the longest as it was given."""
    table = pairs_of(lists)
    name = str(lists) if isinstance(lists, str | Path) else "the table"
    values = _values(table, name)
    users, items = _places(table, dataset)
    for kind, found in (("user", users), ("item", items)):
        missing = table[kind][found < 0]
        if len(missing) == len(table):
            raise InputError(
                f"{name} names no {kind} of this dataset ({shown(missing.iloc[0])}, for example): check the ids."
            )
        if len(missing):
            tell(
                f"{name} names {missing.nunique():,} {kind}s that this dataset does not have, such as "
                f"{shown(missing.iloc[0])}, in {len(missing):,} rows: they are taken out."
            )
    longest = int(np.bincount(users[users >= 0]).max())
    listed = Listed(users, items, values).where((users >= 0) & (items >= 0)).in_order()
    keys = listed.users * dataset.n_items + listed.items
    first = np.zeros(len(listed), bool)
    first[np.unique(keys, return_index=True)[1]] = True
    known = owned_items(dataset.train, *([dataset.validation] if part == "test" else []))
    owns = np.isin(keys, known.users * dataset.n_items + known.items)
    for wrong, what in (
        (~first, "an item that its user has in an earlier place too"),
        (first & owns, "an item that its user owns by training or validation, which no list may hold"),
    ):
        if wrong.any():
            tell(f"{name} has {what} in {int(wrong.sum()):,} rows: they are taken out, and what is behind moves up.")
    listed = listed.where(first & ~owns)
    held = np.unique((dataset.test if part == "test" else dataset.validation).users)
    without = int((listed.lengths(dataset.n_users)[held] == 0).sum())
    if without:
        tell(
            f"{name} has no list for {without:,} of {len(held):,} users with a held-out item: they have found nothing."
        )
    return listed, longest


def _values(table: pd.DataFrame, name: str) -> np.ndarray:
    """(n,) float64, the higher the better: minus the rank, or the score."""
    columns = {str(column).lower(): column for column in table.columns}
    rank = next((columns[each] for each in RANKS if each in columns), None)
    score = next((columns[each] for each in SCORES if each in columns), None)
    column = score if rank is None else rank
    if column is None:
        raise InputError(
            f"{name} has neither a column 'rank' nor 'score', only {', '.join(map(str, table.columns))}: name one so."
        )
    values = pd.to_numeric(table[column], errors="coerce").to_numpy(np.float64, na_value=np.nan)
    wrong = ~np.isfinite(values)
    if wrong.any():
        raise InputError(
            f"{name} has {shown(table[column].tolist()[int(wrong.argmax())])} as {column!r} in {rows_in_words(wrong)}: "
            "a rank or a score is a number; correct it, or remove the row."
        )
    return values if rank is None else -values
