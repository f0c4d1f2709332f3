"""A model for use: the chosen settings and lengths of training, on all interactions, held-out ones included."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from imgrec_lib.errors import InputError
from imgrec_lib.request import Moved
from imgrec_lib.runs.load import load_inputs
from imgrec_lib.runs.record import Run
from imgrec_lib.runs.train import train_run


def refit(run: Run, out: Path, *, root: Moved = None, progress: bool = True) -> Run:
    """Train a finished run's model once more, on everything that is known of its users.

    Each phase runs as many epochs as it took the run to its best validation there; a phase after the best one is left
    out. Nothing is validated or tested, for nothing is held out: the new run is of the stage "refit", which no table
    reads. A linear decay of the learning rate ends with the shorter training.

    Args:
        run: a finished trial.
        out: the new run's folder.
        root: where the data lie now, if they were moved: see `Request.at`.
        progress: show progress bars.

    Returns:
        The new run.

    Raises:
        InputError: the run is no trial, or see `load_inputs` and `train_run`.
    """
    if run.record.stage != "trial":
        raise InputError(f"run {run.name} is no trial but of stage {run.record.stage!r}: name a run that was tested.")
    dataset, features = load_inputs(run, progress, root)
    request = replace(run.request.at(root), parameters=run.request.parameters | chosen_lengths(run), device="cpu")
    return train_run(dataset.undivided(), request, out, features=features, stage="refit", progress=progress)


def chosen_lengths(run: Run) -> dict[str, int | str]:
    """The settings by which a training runs exactly as long as the run's weights took, phase by phase."""
    record, curve = run.record, run.curve
    column = f"validation_{record.validation.choose_by}"
    settings: dict[str, int | str] = {}
    for number in range(1, len(record.phases) + 1):
        part = curve[curve["phase"] == number].dropna(subset=[column])
        if number > record.validation.phase or part.empty:
            epochs = 0
        elif number == record.validation.phase:
            epochs = record.validation.epoch
        else:
            epochs = int(part["epoch"].to_numpy()[part[column].to_numpy().argmax()])
        settings |= {f"phase{number}_epochs": epochs, f"phase{number}_patience": 0, f"phase{number}_restore": "last"}
    return settings
