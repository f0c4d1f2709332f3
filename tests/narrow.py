"""What a test knows of a value although its declared type leaves it open: checked, and given back with that type."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import pandas as pd

from imgrec_lib.data.dataset import TrainingData
from imgrec_lib.models import build_model
from imgrec_lib.models.base import Recommender
from imgrec_lib.runs.record import Metrics

Value = TypeVar("Value")
Model = TypeVar("Model", bound=Recommender)


def not_none(value: Value | None) -> Value:
    """The value, which is there."""
    assert value is not None
    return value


def built(kind: type[Model], name: str, data: TrainingData, **options: Any) -> Model:
    """What `build_model` makes of the name and the options, as the class that it is."""
    model = build_model(name, data, **options)
    assert isinstance(model, kind)
    return model


def metric_value(metrics: Metrics | None, protocol: str, name: str) -> float:
    """A metric of a run or of an oracle that there is, with a value."""
    return not_none(not_none(metrics)[protocol][name])


def number_in(table: pd.DataFrame, row: Any, column: Any) -> float:
    """The number in one cell of a table."""
    value = table.at[row, column]
    assert isinstance(value, float | int | np.floating | np.integer)
    return float(value)
