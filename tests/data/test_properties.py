"""Readers on what Hypothesis thinks of: a result that keeps its promises, or a sentence; never another error."""

from __future__ import annotations

import csv
import io
import json
import unicodedata
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imgrec_lib import InputError, load_dataset, open_run
from imgrec_lib.data.decoding import decode
from imgrec_lib.data.readers.table import read_interactions, read_items
from imgrec_lib.matrix import read_matrix

plain = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

# Text as a CSV file can hold it: no halves of surrogate pairs; a NUL ends a cell for the C parser of pandas.
cells = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\u200b\u200c\u200d\u2060\ufeff"),
    min_size=1,
    max_size=8,
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


def written(rows: list[list[str]], separator: str) -> bytes:
    text = io.StringIO()
    csv.writer(text, delimiter=separator, quoting=csv.QUOTE_ALL).writerows(rows)
    return text.getvalue().encode()


@plain
@given(st.lists(st.tuples(cells, cells), min_size=1, max_size=12), st.sampled_from(",;\t"))
def test_ids_are_read_as_they_were_written(tmp_path: Path, pairs: list[tuple[str, str]], separator: str) -> None:
    path = tmp_path / "i.csv"
    path.write_bytes(written([["user", "item"], *map(list, pairs)], separator))
    expected = [tuple(unicodedata.normalize("NFC", cell).strip() for cell in pair) for pair in pairs]
    try:
        table = read_interactions(path)
    except InputError:
        assert any(cell == "" or "\n" in cell for pair in expected for cell in pair)
    else:
        assert list(zip(table["user"], table["item"], strict=True)) == expected


@plain
@given(st.binary(max_size=120) | st.text("user,item;\t\n\"'0123456789.-e:T", max_size=120).map(str.encode))
def test_any_bytes_are_a_table_or_a_sentence(tmp_path: Path, content: bytes) -> None:
    for suffix in ("csv", "parquet"):
        path = tmp_path / f"t.{suffix}"
        path.write_bytes(content)
        for read in (read_interactions, read_items):
            try:
                read(path)
            except InputError as error:
                assert str(path) in str(error)


ids = st.sampled_from("abcdefgh")
times = st.none() | st.integers(0, 2**33)


@plain
@given(st.lists(st.tuples(ids, ids, st.integers(0, 2**33)), max_size=40), st.sampled_from(["random", "time"]))
def test_a_split_loses_and_leaks_nothing(tmp_path: Path, rows: list[tuple[str, str, int]], split: str) -> None:
    path = tmp_path / "i.csv"
    path.write_bytes(written([["user", "item", "time"], *([u, i, str(t)] for u, i, t in rows)], ","))
    try:
        dataset = load_dataset(
            "table", interactions=path, min_interactions=3, split=split, time_format="seconds", progress=False
        )
    except InputError:
        counts = {u: len({i for v, i, _ in rows if v == u}) for u, _, _ in rows}
        assert not any(count >= 3 for count in counts.values())
        return
    items = dataset.items["item"].tolist()
    for user, name in enumerate(dataset.user_ids):
        held = [int(dataset.validation.items[user]), int(dataset.test.items[user])]
        parts = [*dataset.train.of(user).tolist(), *held]
        assert len(parts) == len(set(parts))
        assert {items[i] for i in parts} == {i for u, i, _ in rows if u == name}
        if split == "time":
            first = {i: min(t for u, j, t in rows if (u, j) == (name, i)) for u, i, _ in rows if u == name}
            assert first[items[held[1]]] >= first[items[held[0]]] >= max(first[items[i]] for i in parts[:-2])


@plain
@given(json_values)
def test_any_record_is_a_run_or_a_sentence(tmp_path: Path, value: Any) -> None:
    base = {"format": 1, "identity": "x", "seed": 1, "metrics": {}}
    for record in (value, base | value if isinstance(value, dict) else base | {"dataset": value}):
        (tmp_path / "run.json").write_text(json.dumps(record))
        with pytest.raises(InputError, match=r"run\.json"):
            open_run(tmp_path)


@plain
@given(st.dictionaries(st.sampled_from(["dataset", "models", "seeds", "parameters", "device", "x"]), json_values))
def test_any_matrix_is_read_or_a_sentence(tmp_path: Path, value: dict[str, Any]) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(yaml.safe_dump(value))
    try:
        read_matrix(path)
    except InputError as error:
        assert "\n" not in str(error)


@plain
@given(
    st.integers(1, 40), st.integers(1, 40), st.sampled_from(["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"]), st.data()
)
def test_a_damaged_picture_is_a_picture_or_a_reason(width: int, height: int, kind: str, data: st.DataObject) -> None:
    from PIL import Image

    buffer = io.BytesIO()
    noise = np.random.default_rng(width * height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, kind)
    content = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with warnings.catch_warnings(action="ignore"):
        try:
            pixels = decode(bytes(content[: data.draw(st.integers(1, len(content)))]), 6)
        except ValueError as error:
            assert str(error)
        else:
            assert pixels.shape == (6, 6, 3) and pixels.dtype == np.uint8
