"""The journal of a search: which configurations were drawn, what they reached, and what is tried next.

One file holds one model's search, as Optuna keeps it (`JournalStorage`): lines of JSON, appended only, so that a search
that was killed goes on from it, and any tool of Optuna's reads it. The values are those of validation: a study is never
told a metric of the test items.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from imgrec_lib.errors import InputError, one_line
from imgrec_lib.files import fingerprint, make_folder
from imgrec_lib.models.base import Range, Space
from imgrec_lib.options import Count, CountOrNone, Option, Positive, check_options, options_of
from imgrec_lib.search.space import combinations, distributions, own_values, read_space, space_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optuna import Study as OptunaStudy
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

STARTUP = 5
"""Configurations that TPE draws at random before it learns from them."""
LONGEST_LOCK = 5.0
"""Seconds after which a lock on a journal is one that a killed process has left: a line is written in milliseconds."""

_storages: dict[tuple[str, int], Any] = {}
"""The journals that this process has read, by path and inode: only what is new in them is read again."""


@dataclass(frozen=True)
class Search:
    """How one model's hyper-parameters are searched.

    Attributes:
        space: what may be tried; a space of lists alone that has no more configurations than `trials` is tried whole.
        trials: at most so many configurations; None for no limit beside `minutes`.
        minutes: no configuration is drawn once those that have ended took so many minutes together; None for no limit.
        sampler: "tpe", "random" or "grid", which tries every combination of a space of lists; see Optuna's samplers.
        pruner: what ends a training early that lags behind the others: "none", "median", "halving" (successive
            halving) or "hyperband"; see Optuna's pruners.
        seed: of the sampler.
    """

    space: Space = field(default_factory=dict)
    trials: Count | None = 10
    minutes: Positive | None = None
    sampler: Literal["tpe", "random", "grid"] = "tpe"
    pruner: Literal["none", "median", "halving", "hyperband"] = "none"
    seed: CountOrNone = 0

    @property
    def most(self) -> int | None:
        """At most so many configurations are tried; None where minutes alone are the limit."""
        limits = [limit for limit in (self.trials, combinations(self.space)) if limit is not None]
        return min(limits, default=None)

    @property
    def whole(self) -> bool:
        """Whether every combination is tried, in the order of a grid."""
        size = combinations(self.space)
        return self.sampler == "grid" or (size is not None and self.trials is not None and size <= self.trials)

    def check(self) -> None:
        """Refuse a search that would not end, or a grid over a range.

        Raises:
            InputError: in each of these cases.
        """
        if self.most is None and self.minutes is None:
            raise InputError("a search needs a budget: give it 'trials' or 'minutes'.")
        if self.sampler == "grid" and combinations(self.space) is None:
            ranges = [name for name, values in self.space.items() if isinstance(values, Range)]
            raise InputError(f"the sampler 'grid' tries every value: make {ranges[0]!r} a list, or choose 'tpe'.")

    def left(self, drawn: int, seconds: float) -> int | None:
        """How many configurations are still to be drawn; None where nobody knows, for minutes are the limit.

        Args:
            drawn: how many were drawn.
            seconds: that those which have ended took together.
        """
        if self.minutes is not None and seconds >= 60 * self.minutes:
            return 0
        return None if self.most is None else max(0, self.most - drawn)

    def to_json(self) -> dict[str, Any]:
        """What tells one search from another, ready for JSON: all but the budget, so that one may be extended."""
        space = {name: vars(v) if isinstance(v, Range) else list(v) for name, v in self.space.items()}
        return {"space": space, "sampler": self.sampler, "pruner": self.pruner, "seed": self.seed}


@dataclass(frozen=True)
class Study:
    """One model's search in its journal.

    Attributes:
        path: the journal.
        name: which of the journal's studies: a fingerprint of all that its values depend on (model, data, code, space).
        model, profile: what is searched.
        search: how.
        choose_by: the validation metric that is maximised.
    """

    path: Path
    name: str
    model: str
    profile: str = "default"
    search: Search = field(default_factory=Search)
    choose_by: str = "auc"

    def drawn(self) -> list[FrozenTrial]:
        """The configurations drawn so far, by number, with the values that they were told; the journal is only read.

        Raises:
            InputError: the journal is damaged.
        """
        if not self.path.is_file():
            return []
        with self._readable():
            storage = _storage(self.path)
            known = {study.study_name: study._study_id for study in storage.get_all_studies()}
            if self.name not in known:
                return []
            waiting = _optuna().trial.TrialState.WAITING
            return [trial for trial in storage.get_all_trials(known[self.name]) if trial.state != waiting]

    def table(self) -> pd.DataFrame:
        """The configurations, indexed by number: `state` ("done", "ended early" or "open": not told yet), `value` (by
        `choose_by`; of one that was ended early, its last), and a column for each hyper-parameter of the space."""
        words = {"COMPLETE": "done", "PRUNED": "ended early", "FAIL": "failed"}
        rows = [
            {"state": words.get(trial.state.name, "open"), "value": math.nan if trial.value is None else trial.value}
            | {name: trial.params.get(name) for name in self.search.space}
            for trial in self.drawn()
        ]
        return pd.DataFrame(rows, columns=["state", "value", *self.search.space])

    def draw(self) -> FrozenTrial:
        """Draw the next configuration.

        It depends on the search's seed, its number and what the earlier ones were told, and not on which process draws:
        a search of one worker that was killed goes on as if it had not been. The first is the profile's own, where the
        space has it, so that a search ends no worse, on the validation items, than it began.
        """
        number, whole = len(self.drawn()), self.search.whole
        study = self._opened(self._sampler(number))
        own = own_values(self.model, self.profile, self.search.space)
        if number == 0 and own is not None and not whole:
            study.enqueue_trial(own)
        drawn = study.ask(distributions(self.model, self.profile, self.search.space))
        return self.drawn()[drawn.number]

    def tell(self, number: int, value: float, *, pruned: bool = False) -> None:
        """Say what a configuration has reached on the validation items; once told it stays.

        Args:
            number: the configuration's.
            value: by `choose_by`.
            pruned: it was ended early: the value is of its last epoch, and takes part in no choice.
        """
        states = _optuna().trial.TrialState
        study = self._opened()
        if self.drawn()[number].state == states.RUNNING:
            if pruned or not math.isfinite(value):
                study.tell(number, state=states.PRUNED if pruned else states.FAIL)
            else:
                study.tell(number, value)

    def observer(self, number: int) -> Callable[[Mapping[str, Any]], bool]:
        """What a training calls after each epoch, see `fit`: it reports the validation, and says whether to stop."""
        study = self._opened()
        trial = _optuna().trial.Trial(study, self.drawn()[number]._trial_id)
        reported = set(self.drawn()[number].intermediate_values)

        def observe(epoch: Mapping[str, Any]) -> bool:
            value, step = epoch.get(f"validation_{self.choose_by}"), int(epoch["trained"])
            if value is None or not math.isfinite(value):
                return False
            if step not in reported:  # it was, before the training was interrupted
                trial.report(value, step)
            return trial.should_prune()

        return observe

    def mend(self) -> None:
        """Repair what a process leaves that is killed while it writes: half a line, and a lock.

        To be called by the one process that draws, before it begins.
        """
        with suppress(FileNotFoundError):
            content = self.path.read_bytes()
            if content and not content.endswith(b"\n"):
                with self.path.open("r+b") as file:
                    file.truncate(content.rfind(b"\n") + 1)
        lock = self.path.with_name(self.path.name + ".lock")
        with suppress(FileNotFoundError):
            if time.time() - lock.lstat().st_mtime > LONGEST_LOCK:
                lock.unlink()

    def opened(self) -> OptunaStudy:
        """The study as Optuna's, for its own functions."""
        return self._opened()

    def _opened(self, sampler: BaseSampler | None = None) -> OptunaStudy:
        optuna = _optuna()
        make_folder(self.path.parent)
        with self._readable():
            storage = _storage(self.path)
            new = self.name not in {study.study_name for study in storage.get_all_studies()}
            # Optuna's grid stops a study that it believes to run by itself; what tells it anything has no need of one.
            about = {"storage": storage, "study_name": self.name, "pruner": self._pruner()}
            about["sampler"] = sampler or optuna.samplers.RandomSampler(self.search.seed)
            if not new:
                return optuna.load_study(**about)
            study = optuna.create_study(direction="maximize", **about)
            described = {"model": self.model, "profile": self.profile, "choose_by": self.choose_by}
            for key, value in (described | {"search": self.search.to_json()}).items():
                study.set_user_attr(key, value)
            return study

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except (ValueError, KeyError, TypeError, AssertionError) as error:
            _storages.clear()
            raise InputError(
                f"the journal {self.path} is damaged ({one_line(error)}): delete it, and the search begins anew."
            ) from error

    def _sampler(self, number: int) -> BaseSampler:
        samplers, search = _optuna().samplers, self.search
        if search.whole:
            grid = {name: list(v) for name, v in search.space.items() if not isinstance(v, Range)}
            return samplers.GridSampler(grid, seed=search.seed)
        seed = int(fingerprint([search.seed, number])[:8], 16)
        if search.sampler == "random":
            return samplers.RandomSampler(seed)
        return samplers.TPESampler(n_startup_trials=STARTUP, constant_liar=True, seed=seed)

    def _pruner(self) -> BasePruner:
        pruners = _optuna().pruners
        kinds = {
            "none": pruners.NopPruner,
            "median": pruners.MedianPruner,
            "halving": pruners.SuccessiveHalvingPruner,
            "hyperband": pruners.HyperbandPruner,
        }
        return kinds[self.search.pruner]()


def read_search(model: str, values: Mapping[str, Any], owner: str, profile: str = "default") -> Search:
    """A search as people write it: attributes of `Search`, its space as `read_space` takes it or else the card's.

    Args:
        model, profile: what is searched.
        values: attributes by name; no limit of `trials` beside `minutes` where these alone are given.
        owner: whose it is, for the sentence (a matrix file).

    Raises:
        InputError: an unknown attribute or a value that it cannot have, see also `Search.check`; or nothing to search.
    """
    how = check_options(f"the search of {model} in {owner}", options_of(Search) | {"space": Option(dict)}, values)
    if "minutes" in how:
        how.setdefault("trials", None)
    space = space_of(model, profile)
    if "space" in how:
        space = read_space(f"the space of {model} in {owner}", how["space"])
    if not space:
        raise InputError(f"{owner} asks for a search of {model}, which has nothing to search: give it a space.")
    search = Search(**how | {"space": space})
    search.check()
    return search


def read_studies(path: Path) -> list[Study]:
    """The studies in a journal, the oldest first: that of changed code or data is a new one in the same file.

    Raises:
        InputError: there is no journal, or it is damaged.
    """
    if not Path(path).is_file():
        raise InputError(f"there is no journal {path}: check the path.")
    anonymous = Study(Path(path), "", "")
    with anonymous._readable():
        found = []
        for each in _storage(anonymous.path).get_all_studies():
            about = each.user_attrs
            saved = about["search"]
            space = {name: Range(**v) if isinstance(v, dict) else v for name, v in saved.pop("space").items()}
            found.append(
                Study(
                    anonymous.path,
                    each.study_name,
                    about["model"],
                    about["profile"],
                    Search(space, trials=None, **saved),
                    about["choose_by"],
                )
            )
        return found


def _optuna() -> Any:
    """Optuna, which is imported where something is searched, and is silent where nothing is wrong."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return optuna


def _storage(path: Path) -> Any:
    """A journal, opened once for a process as long as it is the same file."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    _optuna()
    if not path.exists():
        path.touch()
    key = str(path.absolute()), path.stat().st_ino
    if key not in _storages:
        _storages[key] = JournalStorage(JournalFileBackend(str(path)))
    return _storages[key]
