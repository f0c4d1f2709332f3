"""Training: the loop (`fit`), its checkpoints, and its processes (`distributed`)."""

from imgrec_lib.options import check_calls
from imgrec_lib.training.checkpoint import (
    Checkpoint,
    load_optimiser,
    optimiser_tensors,
    read_checkpoint,
    write_checkpoint,
)
from imgrec_lib.training.trainer import FitResult, fit

__all__ = [
    "Checkpoint",
    "FitResult",
    "fit",
    "load_optimiser",
    "optimiser_tensors",
    "read_checkpoint",
    "write_checkpoint",
]

check_calls(__name__)
