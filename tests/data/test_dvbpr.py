"""The published format round-trips; what is not that format is refused, and nothing is executed."""

from __future__ import annotations

import io
import os
import pickle
import struct
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from narrow import not_none
from PIL import Image

from imgrec_lib.data.dataset import Dataset
from imgrec_lib.data.decoding import FileSlice, decode
from imgrec_lib.data.readers.dvbpr import FASHION_CATEGORIES, load_dvbpr
from imgrec_lib.data.readers.published import read_published
from imgrec_lib.errors import InputError

N_USERS, N_ITEMS = 4, 8


class Python2Pickler(pickle._Pickler):
    """Writes str and bytes as Python 2 wrote its byte strings, under the names that NumPy then had."""

    dispatch: ClassVar[dict[type, Any]] = pickle._Pickler.dispatch.copy()
    write: Callable[[bytes], object]
    memoize: Callable[[object], None]

    def save_string(self, value: str | bytes) -> None:
        data = value.encode("latin-1") if isinstance(value, str) else value
        self.write(b"U" + bytes([len(data)]) if len(data) < 256 else b"T" + struct.pack("<i", len(data)))
        self.write(data)
        self.memoize(value)

    dispatch[str] = dispatch[bytes] = save_string

    def save_global(self, value: Any, name: str | None = None) -> None:
        module = {"_reconstruct": "numpy.core.multiarray", "scalar": "numpy.core.multiarray", "list": "__builtin__"}
        label = name or value.__name__
        self.write(f"c{module.get(label, value.__module__)}\n{label}\n".encode())
        self.memoize(value)

    dispatch[type] = save_global
    dispatch[type(len)] = save_global


def jpeg(i: int, size: int = 64) -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(i).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "JPEG")
    return buffer.getvalue()


def entries(key: type = str, **item_fields: Any) -> list[Any]:
    """The six entries, with keys of type `key`."""

    def k(text: str) -> Any:
        return text.encode() if key is bytes else text

    def record(item: int) -> dict[Any, Any]:
        return {k("productid"): item, k("reviewText"): k("so so " * 300)}

    train = defaultdict(list, {u: [record(u), record(u + 1)] for u in range(N_USERS)})
    validation = {u: [record(u + 2)] for u in range(N_USERS)}
    test = {u: [record(u + 3)] for u in range(N_USERS)}
    items = {
        i: {k("imgs"): jpeg(i), k("asin"): k(f"B{i:03}"), **{k(f): v(i) for f, v in item_fields.items()}}
        for i in range(N_ITEMS)
    }
    return [train, validation, test, items, N_USERS, np.int64(N_ITEMS)]


def write(path: Path, pickled: bytes, shape: tuple[int, ...] = (6,)) -> Path:
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": shape})
        file.write(pickled)
    return path


def array_of(values: list[Any]) -> np.ndarray:
    array = np.empty(len(values), dtype=object)
    for i, value in enumerate(values):
        array[i] = value
    return array


def python2(values: list[Any]) -> bytes:
    buffer = io.BytesIO()
    Python2Pickler(buffer, protocol=2).dump(array_of(values))
    return buffer.getvalue()


@pytest.fixture
def published(tmp_path: Path) -> Path:
    one_hot = {"c": lambda i: np.eye(6)[i % 6]}
    return write(tmp_path / "AmazonFashion.npy", python2(entries(bytes, **one_hot)))


def load(path: Path, **options: Any) -> Dataset:
    return load_dvbpr(path, image_size=16, cache=path.parent / "cache", progress=False, **options)


def test_the_test_file_is_what_python_2_wrote(published: Path) -> None:
    """NumPy's own reader, with the encoding for Python 2, sees the published structure in it."""
    content = published.read_bytes()
    assert content.startswith(b"\x93NUMPY\x01\x00") and b"cnumpy.core.multiarray\n_reconstruct" in content
    assert b"U\x09productid" in content
    train, validation, _, items, n_users, n_items = np.load(published, allow_pickle=True, encoding="bytes")
    assert train[1][0][b"productid"] == 1 and validation[0][0][b"productid"] == 2
    assert items[3][b"imgs"] == jpeg(3) and (n_users, n_items) == (N_USERS, N_ITEMS)


def test_round_trip(published: Path) -> None:
    dataset = load(published)
    assert (dataset.name, dataset.n_users, dataset.n_items) == ("AmazonFashion", N_USERS, N_ITEMS)
    assert dataset.user_ids.tolist() == ["0", "1", "2", "3"]
    assert dataset.items.item.tolist() == [f"B{i:03}" for i in range(N_ITEMS)]
    assert dataset.items.category.tolist() == [FASHION_CATEGORIES[i % 6] for i in range(N_ITEMS)]
    for user in range(N_USERS):
        assert dataset.train.of(user).tolist() == [user, user + 1]
    assert dataset.validation.items.tolist() == [2, 3, 4, 5] and dataset.test.items.tolist() == [3, 4, 5, 6]
    assert dataset.images is not None and dataset.images.present.all()
    for item in range(N_ITEMS):
        np.testing.assert_array_equal(dataset.images.pixels[item], decode(jpeg(item), 16))


def plain(value: Any, path: Path) -> Any:
    """As NumPy reads it with encoding="latin1": slices read, bytes as Latin-1 text."""
    if isinstance(value, FileSlice):
        return path.read_bytes()[value.offset : value.offset + value.length].decode("latin-1")
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, np.ndarray):
        return [plain(x, path) for x in value.tolist()]
    if isinstance(value, dict):
        return {plain(k, path): plain(v, path) for k, v in value.items()}
    return [plain(x, path) for x in value] if isinstance(value, list) else value


def test_agrees_with_numpy_and_leaves_pictures_in_the_file(published: Path) -> None:
    mine = read_published(published, progress=False)
    numpys = np.load(published, allow_pickle=True, encoding="bytes")
    assert isinstance(mine[3][0]["imgs"], FileSlice) and mine[3][0]["imgs"].length == len(jpeg(0))
    assert [plain(x, published) for x in mine] == [plain(x, published) for x in numpys]


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("key", [str, bytes])
def test_files_rewritten_by_python_3(published: Path, tmp_path: Path, protocol: int, key: type) -> None:
    values = entries(key, c=lambda i: np.eye(6, dtype="<f4")[i % 6])
    path = write(tmp_path / "three.npy", pickle.dumps(array_of(values), protocol))
    again, original = load(path), load(published)
    assert again.fingerprint == original.fingerprint
    np.testing.assert_array_equal(not_none(again.images).pixels, not_none(original.images).pixels)
    assert again.items.equals(original.items)


def test_numpy_save_is_read(tmp_path: Path) -> None:
    np.save(tmp_path / "n.npy", array_of(entries()), allow_pickle=True)
    assert load(tmp_path / "n.npy").n_items == N_ITEMS


def test_textual_categories(tmp_path: Path) -> None:
    """The third label of the first path; the last where there are fewer; rare ones are "other"."""
    paths = [["Clothing", "Men", "Shirts", "Casual"], ["Clothing", "Shoes"], ["Clothing", "Men", "Hats"], None]
    kinds = [0] * 60 + [1] * 50 + [2] * 49 + [3] * 2
    small = jpeg(0, 8)
    items = {
        i: {b"imgs": small, b"categories": [paths[kind], ["Else", "Else", "Else"]] if paths[kind] else []}
        for i, kind in enumerate(kinds)
    }
    parts = [{0: [{b"productid": i} for i in part]} for part in ([0, 1], [2], [3])]
    dataset = load(write(tmp_path / "men.npy", python2([*parts, items, 1, len(items)])), name="men")
    counts = dataset.items.set_index("item").category.value_counts().to_dict()
    assert counts == {"Shirts": 60, "Shoes": 50, "other": 51}
    assert dataset.items.item.tolist() == [str(i) for i in range(len(items))] and dataset.name == "men"


def test_text_keys_no_categories_and_times(tmp_path: Path) -> None:
    parts = [
        {
            "ann": [{"productid": p, "unixReviewTime": t} for p, t in rows],
            "bob": [{"productid": "z", "unixReviewTime": 9}],
        }
        for rows in ([("x", 5), ("y", 6)], [("w", 7)], [("v", 8)])
    ]
    parts[1].pop("bob")
    parts[2].pop("bob")
    items = {name: {"imgs": jpeg(0, 8) if name != "w" else b"", "title": f"item {name}"} for name in "zyxwv"}
    path = write(tmp_path / "tradesy.npy", python2([*parts, items, 2, 5]))
    with pytest.warns(UserWarning, match="1 of 5 items have no usable picture"):
        dataset = load(path)
    assert dataset.items.item.tolist() == list("vwxyz") and dataset.categories is None
    assert dataset.items.name.tolist() == [f"item {c}" for c in "vwxyz"]
    assert dataset.train.of(0).tolist() == [2, 3] and not_none(dataset.train.times).tolist() == [5, 6, 9]
    assert dataset.validation.items.tolist() == [1, -1] and not_none(dataset.test.times).tolist() == [8, 0]
    assert not_none(dataset.images).present.tolist() == [True, False, True, True, True]


def test_times_of_several_units_and_a_missing_one(tmp_path: Path) -> None:
    def published(*times: int | None) -> Path:
        rows = [
            {"productid": p} | ({} if t is None else {"unixReviewTime": t}) for p, t in zip("wxyz", times, strict=True)
        ]
        parts = [{"ann": part} for part in (rows[:2], rows[2:3], rows[3:])]
        items = {name: {"imgs": jpeg(0, 8)} for name in "wxyz"}
        return write(tmp_path / "file.npy", python2([*parts, items, 1, 4]))

    second = 1_400_000_000
    with pytest.warns(UserWarning, match="seconds in rows 1, 3, 4; milliseconds in row 2"):
        dataset = load(published(second, 1000 * second + 5000, second + 6, second + 7))
    assert not_none(dataset.train.times).tolist() == [second, second + 5]
    assert not_none(dataset.validation.times).tolist() == [second + 6] and not_none(dataset.test.times).tolist() == [
        second + 7
    ]
    with pytest.warns(UserWarning, match="1 of 4 interactions have no time, so that no time is used"):
        assert load(published(second, None, second, second)).train.times is None
    with pytest.raises(InputError, match=r"has 3 as 'unixReviewTime' in row 2: .* time_format='seconds'"):
        load(published(second, 3, second, second))
    told = load(published(second, 3, second, second), time_format="seconds")
    assert not_none(told.train.times).tolist() == [second, 3]


def test_poor_ratings_are_noticed_and_left_out_by_option(tmp_path: Path) -> None:
    stars = {"v": 5.0, "w": 1.0, "x": 4.0, "y": 2.0, "z": 5.0}
    rows = [{"productid": product, "overall": rating} for product, rating in stars.items()]
    items = {name: {"imgs": jpeg(0, 8)} for name in stars}
    path = write(
        tmp_path / "file.npy", python2([{" ann": rows[:3]}, {" ann": rows[3:4]}, {" ann": rows[4:]}, items, 1, 5])
    )
    with pytest.warns(UserWarning) as told:
        everything = load(path)
    sentences = [str(each.message) for each in told]
    assert any(
        "was counted as a purchase, whatever its 'overall' (from 1 to 5, 1 rows below" in each for each in sentences
    )
    assert any("the ids in 'user' of" in each and "had blanks around them" in each for each in sentences)
    assert everything.user_ids.tolist() == ["ann"] and everything.train.of(0).tolist() == [0, 1, 2]
    good = load(path, weight_column="overall", min_weight=2.0)
    assert (
        good.train.of(0).tolist() == [0, 2] and good.test.flat.tolist() == [4] and good.validation.flat.tolist() == [3]
    )


class Attack:
    """Unpickling it would make a folder."""

    def __init__(self, folder: Path, call: Any = os.mkdir) -> None:
        self.folder, self.call = folder, call

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return self.call, (str(self.folder),)


def malicious(folder: Path) -> dict[str, bytes]:
    command = f"__import__('os').mkdir({str(folder)!r})".encode()
    argument = b"U" + bytes([len(command)]) + command
    values = entries()
    values[4] = Attack(folder)
    hidden = entries()
    hidden[3][0]["asin"] = Attack(folder, eval)
    return {
        "reduce": pickle.dumps(array_of(values), 2),
        "stack global": pickle.dumps(array_of(values), 4),
        "inside a record": pickle.dumps(array_of(hidden), 2),
        "eval": b"\x80\x02c__builtin__\neval\n" + argument + b"\x85R.",
        "inst": b"(S'" + command + b"'\ni__builtin__\neval\n.",
        "obj": b"\x80\x02(c__builtin__\neval\n" + argument + b"o.",
        "newobj": b"\x80\x02cnumpy\nndarray\nK\x06\x85\x81.",
        "extension": b"\x80\x02\x82\x01.",
        "persistent": b"\x80\x02U\x01xQ.",
        "dotted name": b"\x80\x04\x8c\x05numpy\x8c\x0bndarray.foo\x93.",
        "codec": b"\x80\x02c_codecs\nencode\nU\x01xU\x03zip\x86R.",
        "a name called wrongly": b"\x80\x02cnumpy\nndarray\nK\x06\x85R.",
        "dtype of objects with names": b"\x80\x02cnumpy\ndtype\nU\x05V1000\x85R.",
        "state of a dict": b"\x80\x02}}b.",
        "deep": b"\x80\x02" + b"(" * 100_000 + b".",
    }


@pytest.mark.parametrize("kind", sorted(malicious(Path("x"))))
def test_malicious_files_are_refused_and_execute_nothing(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "proof"
    path = write(tmp_path / "bad.npy", malicious(target)[kind])
    with pytest.raises(
        InputError, match=r"nothing was executed|the published format does not|the format (does|is) not"
    ):
        read_published(path, progress=False)
    assert not target.exists()


def test_the_attacks_are_real(tmp_path: Path) -> None:
    pickle.loads(malicious(tmp_path / "proof")["reduce"])
    assert (tmp_path / "proof").is_dir()


def test_a_deeply_nested_key_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "deep.npy", b"\x80\x02})" + b"\x85" * 300_000 + b"K\x01s.")
    with pytest.raises(InputError, match="damaged"):
        read_published(path, progress=False)


def test_truncated_anywhere(published: Path) -> None:
    content = published.read_bytes()
    for length in [0, 5, 9, 60, 127, 128, *range(129, len(content), 1009), len(content) - 1]:
        published.write_bytes(content[:length])
        with pytest.raises(InputError, match=r"truncated|damaged"):
            load(published)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_anywhere_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    """No damage leads to anything but a result or the sentence."""
    content = bytearray(python2([*entries()[:3], {i: {b"imgs": b"j", b"c": np.eye(6)[0]} for i in range(8)}, 4, 8]))
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(content) - 1))
        content[position] = data.draw(st.integers(0, 255))
    path = write(tmp_path / "damaged.npy", bytes(content))
    try:
        read_published(path, progress=False)
    except InputError as error:
        assert str(path) in str(error)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (entries()[:5], "six entries"),
        ([*entries(), 1], "six entries"),
        ([*entries()[:4], 99, N_ITEMS], "says that it has 99 users but has 4"),
        ([*entries()[:5], "8"], "says that it has 8 items but has 8"),
        ([[], *entries()[1:]], "training entry is no dictionary"),
        ([{0: [{"productid": 77}]}, *entries()[1:]], "user 0 has no productid, or one that is not in the item table"),
        ([{0: [5]}, *entries()[1:]], "user 0 has no productid"),
        ([*entries()[:3], dict.fromkeys(range(N_ITEMS), 1), N_USERS, N_ITEMS], "item 0 is no dictionary"),
    ],
)
def test_other_contents_get_a_sentence(tmp_path: Path, values: list[Any], message: str) -> None:
    path = write(tmp_path / "other.npy", python2(values), shape=(len(values),))
    with pytest.raises(InputError, match=message):
        load(path)


def test_other_files_get_a_sentence(tmp_path: Path) -> None:
    np.save(tmp_path / "numbers.npy", np.arange(6))
    with pytest.raises(InputError, match="int64 and shape"):
        load(tmp_path / "numbers.npy")
    (tmp_path / "text.npy").write_text("hello")
    with pytest.raises(InputError, match=r"not a \.npy file"):
        load(tmp_path / "text.npy")
    with pytest.raises(InputError, match="there is no file"):
        load(tmp_path / "none.npy")
    path = write(tmp_path / "five.npy", python2(entries()[:5]))  # its head says six
    with pytest.raises(InputError, match=r"damaged|six entries"):
        load(path)
