"""The loop of a search in one process, and one configuration of it; the matrix spreads them over its workers."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from imgrec_lib.data.dataset import Dataset
from imgrec_lib.errors import InputError
from imgrec_lib.features import Features
from imgrec_lib.files import fingerprint, make_folder
from imgrec_lib.request import Request
from imgrec_lib.runs import Run, train_run
from imgrec_lib.search.space import check_space
from imgrec_lib.search.study import Search, Study
from imgrec_lib.source import run_fingerprint


def search(
    dataset: Dataset,
    request: Request,
    how: Search,
    out: Path,
    *,
    features: Features | None = None,
    choose_by: str = "auc",
    progress: bool = True,
) -> tuple[Study, Request]:
    """Search a model's hyper-parameters on a dataset's validation items; the test items are not looked at.

    What `out` holds of the same search is not done again, and one that was stopped goes on.

    Args:
        dataset: what to train and validate on.
        request: the model, its profile, and the parameters that are not searched.
        how: space and budget.
        out: a folder for the journal (`search.journal`) and a run folder for each configuration.
        features: for models that need them, see `train_run`.
        choose_by: the validation metric that is maximised.
        progress: show a progress bar.

    Returns:
        The study, and the request with the best configuration in its `parameters` and `searched`: train it with
        several seeds.

    Raises:
        InputError: a space that is not the model's, no budget, another search at work in the folder, no validation
            items, or no configuration that could be trained.

    Example:
        >>> from pathlib import Path
        >>> from imgrec_lib import Request, load_dataset
        >>> from imgrec_lib.search import Search, search
        >>> dataset = load_dataset("wardrobe", n_users=40, n_items=50, image_size=32, progress=False)
        >>> how = Search({"l2": [10.0, 100.0, 1000.0]})
        >>> study, best = search(dataset, Request("ease"), how, Path("runs/search"), progress=False)
        >>> len(study.drawn()), sorted(best.searched)
        (3, ['l2'])
    """
    from optuna.trial import TrialState

    how.check()
    check_space(request.model, request.profile, how.space)
    if not len(dataset.validation):
        raise InputError("this dataset has no validation items, by which a search chooses: split it with some.")
    parameters = ({"choose_by": choose_by} if request.resolved.phases else {}) | request.parameters
    request = replace(request, parameters=parameters)
    name = fingerprint(
        [request.to_json(), how.to_json(), choose_by, dataset.fingerprint, run_fingerprint(request.model)]
    )
    study = Study(Path(out) / "search.journal", name, request.model, request.profile, how, choose_by)
    make_folder(study.path.parent)
    try:
        lock = FileLock(study.path.with_suffix(".driver.lock")).acquire(timeout=0)
    except Timeout:
        raise InputError(f"another search is at work in {out}: choose another folder.") from None
    with lock, tqdm(total=how.most, desc=f"search of {request.model}", disable=not progress) as bar:
        study.mend()
        seconds = 0.0
        for number in count():
            if number == len(study.drawn()):
                if how.left(number, seconds) == 0:
                    break
                study.draw()
            trial = study.drawn()[number]
            try:
                if trial.state != TrialState.FAIL:
                    point = dict(trial.params)
                    asked = replace(request, parameters=request.parameters | point, varied=point)
                    record = try_out(study, number, asked, Path(out) / f"{name}-{number}", dataset, features).record
                    study.tell(number, record.validation.value(choose_by), pruned=record.pruned)
                    seconds += record.cost.seconds_fit
            except InputError as error:  # a loss that is not finite is a result, too
                tqdm.write(str(error))
                study.tell(number, math.nan)
            bar.update()
    best = _best_point(study)
    if best is None:
        raise InputError(f"no configuration of {request.model} could be trained: see the messages above.")
    return study, replace(request, parameters=request.parameters | best, searched=best)


def try_out(
    study: Study, number: int, request: Request, folder: Path, dataset: Dataset, features: Features | None = None
) -> Run:
    """Train and validate one configuration of a study, its curve added to the journal; it is never tested.

    Args:
        study, number: the study, and the configuration's number in it.
        request: the configuration.
        folder: its run's folder; a run that is complete is opened, one that was stopped goes on.
        dataset, features: see `train_run`.
    """
    return train_run(
        dataset, request, folder, features=features, stage="search", progress=False, observe=study.observer(number)
    )


def _best_point(study: Study) -> dict[str, Any] | None:
    """The configuration with the best value, of equal ones the first; None where none has one."""
    from optuna.trial import TrialState

    told = [trial for trial in study.drawn() if trial.state == TrialState.COMPLETE]
    return None if not told else dict(max(told, key=lambda trial: trial.value or 0.0).params)
