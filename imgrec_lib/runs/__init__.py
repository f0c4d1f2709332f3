"""Runs: what one is (`record`), how it is opened (`load`) and made (`train`), and its model for use (`refit`)."""

from imgrec_lib.options import check_calls
from imgrec_lib.runs.load import Inputs, check_roots, find_runs, load_inputs, load_model
from imgrec_lib.runs.record import TESTED, Cost, DatasetRecord, Metrics, Record, Run, Validation, discard_run, open_run
from imgrec_lib.runs.refit import refit
from imgrec_lib.runs.train import oracle_metrics, train_run

__all__ = [
    "TESTED",
    "Cost",
    "DatasetRecord",
    "Inputs",
    "Metrics",
    "Record",
    "Run",
    "Validation",
    "check_roots",
    "discard_run",
    "find_runs",
    "load_inputs",
    "load_model",
    "open_run",
    "oracle_metrics",
    "refit",
    "train_run",
]

check_calls(__name__)
