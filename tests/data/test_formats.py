"""Tables in the files that people have: every kind gives the same dataset, and what was guessed is told."""

from __future__ import annotations

import bz2
import errno
import gzip
import json
import lzma
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from shops import load, owned

from imgrec_lib.data import formats, load_dataset
from imgrec_lib.data.formats import columns_of, damage_told, find_table, read_table
from imgrec_lib.data.readers.hm import ATTRIBUTES
from imgrec_lib.data.streams import stream_table
from imgrec_lib.errors import InputError, InputWarning

ROWS = [(u, i, 1_600_000_000 + 10 * n + k) for n, u in enumerate(("Zoë", "007", "c")) for k, i in enumerate("abcd")]
TABLE = pd.DataFrame(ROWS, columns=["user", "item", "timestamp"])
OWNED = {u: set("abcd") for u in ("Zoë", "007", "c")}
CSV = TABLE.to_csv(index=False)


def zipped(path: Path, text: str) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("export/interactions.csv", text)
        archive.writestr("__MACOSX/export/._interactions.csv", "x")


def parquet_folder(folder: Path) -> None:
    folder.mkdir()
    for number, part in enumerate((TABLE[:5], TABLE[5:])):
        part.to_parquet(folder / f"part-{number:05}.snappy.parquet")
    (folder / "_SUCCESS").touch()


def lines_of(table: pd.DataFrame) -> str:
    return "\n".join(json.dumps(row) for row in table.to_dict("records"))


FILES: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "gzip": ("interactions.csv.gz", lambda path: path.write_bytes(gzip.compress(CSV.encode()))),
    "bzip2": ("interactions.csv.bz2", lambda path: path.write_bytes(bz2.compress(CSV.encode()))),
    "xz": ("interactions.tsv.xz", lambda path: path.write_bytes(lzma.compress(CSV.replace(",", "\t").encode()))),
    "zip": ("interactions.csv.zip", lambda path: zipped(path, CSV)),
    "upper case": ("Interactions.CSV", lambda path: path.write_text(CSV)),
    "upper case, compressed": ("INTERACTIONS.CSV.GZ", lambda path: path.write_bytes(gzip.compress(CSV.encode()))),
    "JSON lines": ("interactions.jsonl", lambda path: path.write_text(lines_of(TABLE))),
    "JSON lines, gzip": ("interactions.json.gz", lambda p: p.write_bytes(gzip.compress(lines_of(TABLE).encode()))),
    "JSON list": ("interactions.json", lambda p: p.write_text(" " + json.dumps(TABLE.to_dict("records"), indent=1))),
    "Parquet": ("interactions.PARQUET", lambda path: TABLE.to_parquet(path)),
    "Parquet with an index": ("interactions.parquet", lambda path: TABLE.set_index("user").to_parquet(path)),
    "Parquet folder": ("interactions.parquet", parquet_folder),
    "Parquet folder without ending": ("interactions", parquet_folder),
    "bars": ("interactions.csv", lambda path: path.write_text(CSV.replace(",", "|"))),
    "sep line": ("interactions.csv", lambda path: path.write_text("sep=;\r\n" + CSV.replace(",", ";"), newline="\r\n")),
    "sep line in quotes": ("interactions.csv", lambda path: path.write_text('"sep=:"\n' + CSV.replace(",", ":"))),
    "comments": ("interactions.csv", lambda path: path.write_text('# made by "x\n\n# on a day, or two\n' + CSV)),
    "Windows line ends": ("interactions.csv", lambda path: path.write_text(CSV, newline="\r\n")),
    "byte order mark": ("interactions.csv", lambda path: path.write_text(CSV, encoding="utf-8-sig")),
    "RecBole": (
        "shop.inter",
        lambda p: p.write_text(
            CSV.replace("user,item,timestamp", "user_id:token,item_id:token,timestamp:float").replace(",", "\t")
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", FILES)
def test_every_kind_of_file_is_read_without_a_word(tmp_path: Path, kind: str) -> None:
    name, write = FILES[kind]
    write(tmp_path / name)
    with warnings.catch_warnings(action="error"):
        dataset = load("table", tmp_path, split="time")
    assert owned(dataset) == OWNED
    assert dataset.train.times is not None and sorted(dataset.train.times)[0] == 1_600_000_000


@pytest.mark.parametrize(
    ("encoding", "named"),
    [("cp1252", "Windows-1252"), ("utf-16", "UTF-16"), ("utf-16-le", "UTF-16"), ("utf-16-be", "UTF-16")],
)
def test_other_encodings_are_read_and_told(tmp_path: Path, encoding: str, named: str) -> None:
    (tmp_path / "interactions.csv").write_bytes(CSV.encode(encoding))
    with pytest.warns(InputWarning, match=f"is not UTF-8 text and was read as {named}: if letters are wrong, name its"):
        assert owned(load("table", tmp_path)) == OWNED
    with warnings.catch_warnings(action="error"):
        assert owned(load("table", tmp_path, encoding=encoding)) == OWNED


# Every reader takes its tables in every form, see `formats` and `streams`.


def shop_of(reader: str, folder: Path) -> Path:
    """The same purchases in a reader's layout; the table of interactions is not there yet."""
    items = ["0000000001", "0000000002", "0000000003", "0000000004"]
    if reader == "hm":
        attributes = {name: "x" for name in ("prod_name", *ATTRIBUTES)}
        pd.DataFrame({"article_id": items, **attributes}).to_csv(folder / "ARTICLES.CSV.gz", index=False)
    if reader != "amazon2023":
        pictures = folder / "images" / "000"
        pictures.mkdir(parents=True)
        for item in items:
            Image.new("RGB", (4, 4)).save(pictures / f"{item}.jpg")
    return folder


NAMES = {
    "hm": ("TRANSACTIONS_TRAIN", ["customer_id", "article_id", "t_dat"]),
    "covers": ("Clicks", ["user_id", "item_id", "timestamp"]),
    "amazon2023": ("All_Beauty", ["user_id", "parent_asin", "timestamp"]),
}
PURCHASES = pd.DataFrame(
    [
        (u, f"000000000{i}", f"2020-09-{10 + i + n}")
        for n, u in enumerate(("Zo\u00eb", "007", "c"))
        for i in (1, 2, 3, 4)
    ]
)
FORMS: dict[str, tuple[str, Callable[[Path, pd.DataFrame], Any], str]] = {
    "gzip": (".CSV.gz", lambda p, t: p.write_bytes(gzip.compress(t.to_csv(index=False).encode())), ""),
    "zip": (".csv.ZIP", lambda p, t: zipped(p, t.to_csv(index=False)), ""),
    "UTF-16": (".csv", lambda p, t: p.write_bytes(t.to_csv(index=False).encode("utf-16")), "was read as UTF-16"),
    "cp1252": (".csv", lambda p, t: p.write_bytes(t.to_csv(index=False).encode("cp1252")), "was read as Windows-1252"),
    "sep": (".csv", lambda p, t: p.write_text('# by "x\nsep=;\n' + t.to_csv(index=False, sep=";")), ""),
    "tabs": (".TSV", lambda p, t: p.write_text(t.to_csv(index=False, sep="\t"), encoding="utf-8-sig"), ""),
    "JSON lines": (".jsonl.xz", lambda p, t: p.write_bytes(lzma.compress(lines_of(t).encode())), ""),
    "JSON list": (".json", lambda p, t: p.write_text(json.dumps(t.to_dict("records"), indent=1)), ""),
    "Parquet": (".parquet", lambda p, t: t.assign(**{t.columns[2]: pd.to_datetime(t.iloc[:, 2])}).to_parquet(p), ""),
}


@pytest.mark.parametrize("reader", NAMES)
def test_every_reader_takes_every_form_of_table(tmp_path: Path, reader: str) -> None:
    stem, names = NAMES[reader]
    table = PURCHASES.set_axis(names, axis=1)
    table = table.assign(rating=5.0) if reader == "amazon2023" else table
    found = {}
    for form, (ending, write, told) in FORMS.items():
        (tmp_path / form).mkdir()
        root = shop_of(reader, tmp_path / form)
        write(root / f"{stem}{ending}", table)
        with warnings.catch_warnings(record=True) as notes:
            warnings.simplefilter("always")
            dataset = load(reader, root, split="time")
        path = str(root / f"{stem}{ending}")
        sentences = [str(note.message) for note in notes if str(note.message).startswith(f"{path} ")]
        assert len(sentences) == bool(told) and all(told in sentence for sentence in sentences), (form, sentences)
        assert set(owned(dataset)) == {"Zo\u00eb", "007", "c"}, form
        found[form] = dataset.fingerprint
    assert len(set(found.values())) == 1, found


def test_an_encoding_that_must_be_named(tmp_path: Path) -> None:
    text = CSV.replace("Zoë", "\u5f20\u4e09")
    (tmp_path / "interactions.csv").write_bytes(text.encode("gbk"))
    with warnings.catch_warnings(action="error"):
        assert set(owned(load("table", tmp_path, encoding="gbk"))) == {"\u5f20\u4e09", "007", "c"}
    with pytest.raises(InputError, match=r"is not UTF-8 text, and not ascii either: .* with the option encoding"):
        load("table", tmp_path, encoding="ascii")
    with pytest.raises(InputError, match="there is no encoding 'utf8000': name one such as 'utf-8'"):
        load("table", tmp_path, encoding="utf8000")


def test_a_recbole_folder_with_items_and_a_split(tmp_path: Path) -> None:
    header = "user_id:token\titem_id:token\n"
    for part, items in {"train": "ab", "valid": "c", "test": "d"}.items():
        rows = "".join(f"{u}\t{i}\n" for u in ("u", "v") for i in items)
        (tmp_path / f"ml.{part}.inter").write_text(header + rows)
    (tmp_path / "ml.item").write_text(
        "item_id:token\tmovie_title:token_seq\tclass:token_seq\n" + "".join(f"{i}\tThe {i}\tx y\n" for i in "abcd")
    )
    dataset = load("table", tmp_path)
    assert dataset.split == {"kind": "given"} and owned(dataset) == {"u": set("abcd"), "v": set("abcd")}
    assert dataset.attribute_columns == ["movie_title", "class"] and dataset.items["class"].tolist() == ["x y"] * 4
    (tmp_path / "a.inter").write_text(header + "u\ta\n")
    (tmp_path / "b.inter").write_text(header + "u\ta\n")
    with pytest.raises(InputError, match=r"has several files \.inter \(a\.inter, b\.inter\): name one"):
        load("table", tmp_path)


def test_json_keeps_numbers_and_makes_text_of_what_is_nested(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    path.write_text('{"item": 7, "details": {"a": [1]}, "x": null}\n\n{"item": 9007199254740993, "x": "", "y": true}\n')
    table = read_table(path)
    assert table["item"].tolist() == [7, 9007199254740993] and table["details"][0] == '{"a": [1]}'
    assert table["x"].isna().all() and table["y"].isna().tolist() == [True, False]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("t.jsonl", b'{"a": 1}\n{"a": \n', r"t\.jsonl cannot be read \(.*in line 2\): write one JSON object a line"),
        ("t.jsonl", b"1\n2\n", "holds JSON values that are no objects"),
        ("t.json", b"[" * 100_000, "cannot be read"),
        ("t.jsonl", b'{"a": ' + b"[" * 100_000, "cannot be read"),
        ("t.csv.gz", b"user,item\n", "cannot be read"),
        ("t.csv.zip", b"PK", "cannot be read"),
        ("t.xlsx", b"PK", r"t\.xlsx is neither \.csv nor"),
        ("t.gz", b"", r"t\.gz is neither \.csv nor"),
        ("t.parquet", b"PAR1", "cannot be read"),
        ("t.csv", b"a,a\n1,2\n", "has two columns named 'a'"),
        ("t.csv", b"# nothing\n", "is empty: it needs a header line"),
        ("t.csv", b"a,b\n1,\"2\n3,4\n", "EOF inside string starting at row"),
    ],
)  # fmt: skip
def test_damaged_files_get_a_sentence(tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=sentence):
        read_table(tmp_path / name)


def test_an_archive_of_several_files_and_a_folder_that_is_no_table(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "t.csv.zip", "w") as archive:
        archive.writestr("a.csv", CSV)
        archive.writestr("b.csv", CSV)
    with pytest.raises(InputError, match=r"t\.csv\.zip holds 2 files: leave the one that is the table in it"):
        read_table(tmp_path / "t.csv.zip")
    (tmp_path / "t.csv").mkdir()
    with pytest.raises(InputError, match=r"t\.csv is neither"):
        read_table(tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("places", "value", "reason"),
    [
        ((8, 10), 99, r"cannot be read \(That compression method is not supported\): unpack it with the program"),
        ((6, 8), 1, r"cannot be read \(File 'a\.csv' is encrypted, .*\): unpack it with the program"),
    ],
)  # fmt: skip
def test_archives_that_python_cannot_unpack(tmp_path: Path, places: tuple[int, int], value: int, reason: str) -> None:
    path = tmp_path / "t.csv.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.csv", CSV)
    content = bytearray(path.read_bytes())
    for signature, place in zip((b"PK\3\4", b"PK\1\2"), places, strict=True):
        content[content.index(signature) + place] = value
    path.write_bytes(content)
    for read in (read_table, columns_of, lambda path: stream_table(path, ["user"], progress=False)):
        with pytest.raises(InputError, match=reason):
            read(path)


def test_a_table_that_may_not_be_read_is_not_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t.csv").write_text(CSV)

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "t.csv"))

    monkeypatch.setattr(formats, "open", refuse, raising=False)
    for read in (read_table, columns_of):
        with pytest.raises(InputError, match=r"t\.csv cannot be read \(Permission denied\): ask for the permission"):
            read(tmp_path / "t.csv")


@pytest.mark.parametrize("error", [NotImplementedError(), MemoryError(), OSError(errno.EBADF, "Bad file descriptor")])
def test_what_is_no_damage_stays_what_it_is(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error)), damage_told(tmp_path / "t.csv", pa.ArrowException):
        raise error


@pytest.mark.parametrize("name", ["t.jsonl", "t.parquet"])
def test_text_that_is_none_gets_a_sentence_in_a_stream(tmp_path: Path, name: str) -> None:
    if name == "t.jsonl":
        (tmp_path / name).write_text('{"user": "\\ud800"}\n')
    else:
        ends, content = np.array([0, 2], np.int32).tobytes(), b"\xff\xfe"
        text = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(ends), pa.py_buffer(content)])
        pq.write_table(pa.table({"user": text}), tmp_path / name)
    with pytest.raises(InputError, match=rf"{name} cannot be read \('utf-8' codec can't .*\): correct it"):
        stream_table(tmp_path / name, ["user"], progress=False)


def test_of_two_tables_of_one_name_it_is_told_which_is_read(tmp_path: Path) -> None:
    TABLE.to_parquet(tmp_path / "interactions.parquet")
    (tmp_path / "interactions.csv").write_text(CSV)
    with pytest.warns(InputWarning, match=r"interactions\.csv is read, and not interactions\.parquet beside it"):
        assert find_table(tmp_path, "interactions", recbole=".inter") == tmp_path / "interactions.csv"


def test_rows_that_a_quotation_mark_swallowed_are_told(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('user,item,note\nu,a,x\nu,b,"y\nv,a,z\nv,b,z"\nw,a,x\n')
    with pytest.warns(InputWarning, match=r"in 'note' that hold what looks like 2 further rows \(the first in row 2\)"):
        assert len(read_table(path)) == 3
    path.write_text('user,item,note\nu,"a,x\nu,b",y\nv,a,z\n')
    with (
        warnings.catch_warnings(action="ignore"),
        pytest.raises(InputError, match=r"'item' of .* spans several lines in row 1"),
    ):
        load("table", None, interactions=path)
    path.write_text('item,name,note\na,A,"a text\nof two lines, with a comma"\n')
    with warnings.catch_warnings(action="error"):
        assert len(read_table(path)) == 1


def test_rows_that_a_quotation_mark_swallowed_in_a_stream_are_told(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('user,item,note\nu,a,x\n\nu,b,"y\nv,a,z\nv,b,z"\nw,a,x\n\n')
    with pytest.warns(InputWarning, match=r"t\.csv has 2 lines more than rows: a quotation mark is not closed"):
        assert stream_table(path, ["user", "item"], progress=False)["user"].tolist() == ["u", "u", "w"]
    path.write_text("user,item,note\nu,a,x\n\n\nu,b,y\n\n")
    with warnings.catch_warnings(action="error"):
        assert len(stream_table(path, ["user", "item"], progress=False)) == 2


def picture_folder(folder: Path) -> Path:
    (folder / "pictures").mkdir()
    for item in "abcd":
        Image.new("RGB", (4, 4)).save(folder / "pictures" / f"{item}.png")
    return folder / "pictures"


def test_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "interactions.csv").write_text(CSV)
    assert owned(load("table", Path("~/shop"))) == OWNED
    assert owned(load("table", None, interactions="~/shop/interactions.csv")) == OWNED
    for reader in ("hm", "dvbpr"):
        with pytest.raises(InputError, match=str(tmp_path)):
            load_dataset(reader, Path("~/shop"))
    with pytest.raises(InputError, match="the home folder in '~nobody-at-all/shop' is not known: write the whole path"):
        load("table", Path("~nobody-at-all/shop"))
    dataset = load("table", Path("~/shop"), cache="~/cache", images=picture_folder(tmp_path))
    assert dataset.images is not None and (tmp_path / "cache" / "images").is_dir()
