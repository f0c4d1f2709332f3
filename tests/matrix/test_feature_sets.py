"""A matrix that compares sets of features: a run for each, its control beside it, and models without features once."""

from __future__ import annotations

from pathlib import Path

import pytest

from imgrec_lib import InputError
from imgrec_lib.matrix import plan, read_matrix

TEXT = """
models: [bpr-mf, vbpr]
seeds: [0]
controls: [vbpr]
feature_sets: {words: {words: text}, both: {look: pictures, words: text}}
feature_options: {unit_length: true, text_components: 8, pooling: max}
"""


def test_each_set_is_run_with_its_control(tmp_path: Path) -> None:
    (tmp_path / "sets.yaml").write_text(TEXT)
    trials = plan(
        read_matrix(tmp_path / "sets.yaml"), tmp_path / "runs", tmp_path / "reports", {"wardrobe": None}
    ).trials
    found = {
        (task.labels["model"], task.labels.get("features"), task.labels.get("control")): task.parameters
        for task in trials
    }
    assert list(found) == [
        ("bpr-mf", None, None),
        *(("vbpr", name, control) for name in ("words", "both") for control in (None, "shuffled features")),
    ]
    assert len({task.folder for task in trials}) == 5
    assert found["vbpr", "both", None]["feature_files"] == {"look": "pictures", "words": "text"}
    # Each takes the options that it knows.
    assert found["vbpr", "words", None]["feature_options"] == {"unit_length": True, "text_components": 8}
    assert found["vbpr", "both", None]["feature_options"].keys() == {"unit_length", "text_components", "pooling"}
    assert "feature_files" not in found["bpr-mf", None, None] or not found["bpr-mf", None, None]["feature_files"]


def test_words_yaml_and_sentences(tmp_path: Path) -> None:
    shipped = read_matrix(Path("words"))
    assert list(shipped.feature_sets) == ["picture", "words", "both"] and "bpr-mf" in shipped.models
    for change, sentence in (
        ("features: {a: text}\n", "has both 'features' and 'feature_sets': keep one"),
        ("feature_options: {poolin: max}\n", "unknown option of features 'poolin'"),
    ):
        base = "\n".join(line for line in TEXT.splitlines() if not line.startswith(change.split(":")[0] + ":"))
        (tmp_path / "bad.yaml").write_text(f"{base}\n{change}")
        with pytest.raises(InputError, match=sentence):
            read_matrix(tmp_path / "bad.yaml")
