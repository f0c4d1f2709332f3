"""Which code made a result: edits that matter change the fingerprint, others do not."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from imgrec_lib import InputError, source, train_run
from imgrec_lib.source import RECORDS, run_fingerprint, source_fingerprint

FUTURE = "from __future__ import annotations"
ANSWER = f"{FUTURE}\n\nANSWER = 42"


@pytest.fixture
def edited_library(tmp_path, monkeypatch) -> Iterator[Callable[..., str]]:
    """A function that edits a copy of the library, and returns the fingerprint of modules of that copy."""
    copy = tmp_path / "imgrec_lib"
    shutil.copytree(Path(source.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(source, "__file__", str(copy / "source.py"))

    def edit(path: str, old: str, new: str, modules: list[str]) -> str:
        file = copy / path
        before = file.read_text()
        assert old in before
        file.write_text(before.replace(old, new, 1))
        source._source.cache_clear()
        digits = source_fingerprint(modules, without=RECORDS)
        file.write_text(before)
        source._source.cache_clear()
        return digits

    yield edit
    monkeypatch.undo()
    source._source.cache_clear()


def test_the_source_fingerprint_follows_code_alone(edited_library) -> None:
    modules = ["imgrec_lib.runs.train", "imgrec_lib.models.vbpr"]
    original = source_fingerprint(modules, without=RECORDS)
    for path, old, new in [
        ("models/vbpr.py", FUTURE, ANSWER),  # itself
        ("models/parts/visual.py", FUTURE, ANSWER),  # what it builds on
        ("runs/train.py", FUTURE, ANSWER),
        ("training/trainer.py", "float = 30.0", "float = 31.0"),
        ("evaluation/metrics.py", FUTURE, ANSWER),
        ("data/sampler.py", FUTURE, ANSWER),
    ]:
        assert edited_library(path, old, new, modules) != original, path
    for path, old, new in [
        ("models/vbpr.py", "import torch", "import torch  # a comment"),
        ("models/vbpr.py", '"""', '"""A docstring. '),
        ("models/deepstyle.py", FUTURE, ANSWER),  # another model
        ("results/tables.py", FUTURE, ANSWER),  # makes no number of a run
        ("runs/load.py", FUTURE, ANSWER),  # opens what runs left
        ("runs/record.py", FUTURE, ANSWER),
        ("runs/__init__.py", '"find_runs",', '"find_runs", "ANSWER",'),
    ]:
        assert edited_library(path, old, new, modules) == original, path
    report = source_fingerprint(["imgrec_lib.report"], without=RECORDS)
    assert edited_library("results/tables.py", FUTURE, ANSWER, ["imgrec_lib.report"]) != report


def test_a_run_is_not_opened_for_new_by_other_code(small_wardrobe, tmp_path, monkeypatch) -> None:
    run = train_run(small_wardrobe, "poprank", tmp_path, progress=False)
    assert run.record.source == run_fingerprint("poprank") != run_fingerprint("vbpr")
    assert train_run(small_wardrobe, "poprank", tmp_path, progress=False).record == run.record
    monkeypatch.setattr("imgrec_lib.runs.train.run_fingerprint", lambda model: "edited")
    with pytest.raises(InputError, match="was made by other code of imgrec"):
        train_run(small_wardrobe, "poprank", tmp_path, progress=False)
