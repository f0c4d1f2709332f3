"""What no data could be split by is refused before any is read; an empty validation file is no validation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from narrow import not_none

from imgrec_lib.data import load_dataset
from imgrec_lib.data.images import ImageStore, tell_of_enlargement
from imgrec_lib.errors import InputError
from imgrec_lib.features import extract_features

IMPOSSIBLE: list[tuple[dict[str, Any], str]] = [
    ({"min_interactions": 2}, "min_interactions must be at least 3 "),
    ({"min_interactions": 2, "validate": False, "held_out": 2}, "min_interactions must be at least 3 "),
    ({"min_interactions": 6, "held_out": 3}, "min_interactions must be at least 7 "),
    ({"min_interactions": 0}, "min_interactions must be at least 3"),
    ({"split": "by moon"}, "unknown split 'by moon'"),
    ({"split": "date"}, "needs test_from"),
    ({"split": "date", "test_from": "soon"}, "'soon' is not a day"),
    ({"split": "date", "test_from": "2020-09-16", "validate_from": "2020-09-17"}, "must come before test_from"),
    ({"split": "date", "test_from": "2020-09-16", "validate_from": "2020-09-16"}, "must come before test_from"),
    ({"test_from": "2020-09-16"}, "options of split='date'"),
    ({"held_out": 1.5}, "held_out"),
]


@pytest.mark.parametrize("reader", ["table", "hm"])
@pytest.mark.parametrize(("options", "sentence"), IMPOSSIBLE)
def test_refused_before_any_file_is_read(tmp_path: Path, reader: str, options: dict[str, Any], sentence: str) -> None:
    (tmp_path / "interactions.csv").write_bytes(b"\x00 this is no table")
    with pytest.raises(InputError) as refused:
        load_dataset(reader, tmp_path, **options)
    assert sentence in str(refused.value)


@pytest.mark.parametrize("content", ["user,item\n", "", "user,item\n\n"], ids=["header", "nothing", "blank line"])
def test_an_empty_validation_file_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "train.csv").write_text(
        "user,item\n" + "".join(f"u{u},i{(u + k) % 5}\n" for u in range(4) for k in (0, 1, 2))
    )
    (tmp_path / "test.csv").write_text("user,item\n" + "".join(f"u{u},i{(u + 3) % 5}\n" for u in range(4)))
    (tmp_path / "valid.csv").write_text(content)
    with pytest.warns(UserWarning, match=r"valid\.csv is empty: nothing is chosen by validation"):
        dataset = load_dataset("table", tmp_path)
    assert len(dataset.validation) == 0 and dataset.test.items.tolist() == [3, 4, 0, 1] and len(dataset.train) == 12


@pytest.mark.parametrize("empty", ["train", "test"])
def test_training_and_test_cannot_be_empty(tmp_path: Path, empty: str) -> None:
    for part in ("train", "valid", "test"):
        (tmp_path / f"{part}.csv").write_text("user,item\n" + ("" if part == empty else "u,i\n"))
    with pytest.raises(InputError, match=rf"{empty}\.csv is empty"):
        load_dataset("table", tmp_path)


def test_enlarged_pictures_are_said(recwarn: pytest.WarningsRecorder) -> None:
    store = ImageStore.from_array(np.zeros((2, 16, 16, 3), np.uint8))
    for size in (8, 16):
        tell_of_enlargement(store, size)
    assert not recwarn.list
    with pytest.warns(UserWarning, match="stored with 16 pixels a side and are enlarged to 64 .* image_size=64"):
        tell_of_enlargement(store, 64)


def test_a_model_that_looks_at_pictures_says_when_they_are_enlarged() -> None:
    from imgrec_lib import build_model

    dataset = load_dataset("wardrobe", n_users=20, n_items=20, image_size=24, progress=False)
    with pytest.warns(UserWarning, match="enlarged to 64"):
        build_model("dvbpr", dataset.training_data(), size=64, factors=2)
    # Nobody asked for a size: it is the one that the network's weights are published with.
    for look in (
        lambda: extract_features(not_none(dataset.images), backbone="timm/test_vit", weights="random", progress=False),
        lambda: build_model("imgrec-ete", dataset.training_data(), weights="random"),
        lambda: build_model("saers", dataset.training_data(), weights="random"),
    ):
        with pytest.warns(UserWarning, match=r"stored with 24 pixels a side and are enlarged to (160|224)"):
            look()
