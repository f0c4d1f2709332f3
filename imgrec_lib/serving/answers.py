"""What a server answers: questions and answers as JSON has them, each by the function that Python users call."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from imgrec_lib import __version__
from imgrec_lib.serving.pictures import score_picture, similar_to_picture
from imgrec_lib.serving.trained import Trained, rows_for

Question = Mapping[str, Any]
NEW_CUSTOMER = "new"
"""What a customer is called of whom a basket alone is known."""

NO_ITEM = "(no item)"
"""What stands for the item in an empty basket, for a table of baskets has no rows without one."""


def answer(trained: Trained, name: str, question: Question, picture: bytes = b"") -> dict[str, Any]:
    """Answer a question about a trained model.

    Args:
        trained: the model.
        name: a key of `ANSWERS`.
        question: arguments by name, see there.
        picture: the bytes of a picture, for questions about one.

    Returns:
        What JSON can hold. `notes` are the sentences that the library warns with.

    Raises:
        InputError: see the function that answers.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        found = ANSWERS[name](trained, question, picture)
    notes = [str(each.message) for each in caught if issubclass(each.category, UserWarning)]
    return found | ({"notes": notes} if name != "model" else {})


def _recommend(trained: Trained, question: Question, picture: bytes) -> dict[str, Any]:
    conditions = {name: value for name, value in question.items() if name not in ("user", "basket")}
    if question.get("basket") is None:
        return {"items": rows_for(trained, [question["user"]], **conditions)}
    if not question["basket"]:  # the catalogue does not have `NO_ITEM`, which is no news
        warnings.filterwarnings("ignore", "1 of 1 purchases in the baskets")
    basket = pd.DataFrame({"user": NEW_CUSTOMER, "item": question["basket"] or [NO_ITEM]})
    return {"items": rows_for(trained, baskets=basket, **conditions)}


def _similar(trained: Trained, question: Question, picture: bytes) -> dict[str, Any]:
    found = trained.similar([question["item"]], question["k"], by=question["by"])
    return {"items": _rows(found.rename(columns={"item": "of", "similar": "item"}), less="of")}


def _similar_to_picture(trained: Trained, question: Question, picture: bytes) -> dict[str, Any]:
    found = similar_to_picture(trained, picture, question["k"], by=question["by"])
    return {"items": _rows(found.rename(columns={"similar": "item"}))}


def _score_picture(trained: Trained, question: Question, picture: bytes) -> dict[str, Any]:
    (row,) = _rows(score_picture(trained, picture, [question["user"]]))
    return row


def _model(trained: Trained, question: Question, picture: bytes) -> dict[str, Any]:
    dataset, run = trained.dataset, trained.run
    return {
        "model": trained.title,
        "run": run.name,
        "identity": run.record.identity,
        "finished": run.record.finished,
        "dataset": dataset.name,
        "users": dataset.n_users,
        "items": dataset.n_items,
        "version": __version__,
    }


def _rows(table: pd.DataFrame, less: str = "") -> list[dict[str, Any]]:
    """Rows without a column as plain values: a float32 score is the same number as a float64."""
    columns = {str(name): table[name].tolist() for name in table if name != less}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


ANSWERS: dict[str, Callable[[Trained, Question, bytes], dict[str, Any]]] = {
    "recommend": _recommend,
    "similar": _similar,
    "similar-to-picture": _similar_to_picture,
    "score-picture": _score_picture,
    "model": _model,
}
"""Questions by name, and their arguments. "recommend": `user` or `basket`, and the conditions of `Trained.recommend`;
"similar": `item`, `k`, `by`; "similar-to-picture": `k`, `by`, and a picture; "score-picture": `user`, and a picture;
"model": none."""
