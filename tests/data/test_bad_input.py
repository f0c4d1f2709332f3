"""Bad input gets one sentence that says where and what to do, and leaves nothing behind.

Text lies in `corpus/`, one file a case, with its sentence in `corpus/sentences.yaml`; what is binary is made here.
"""

from __future__ import annotations

import io
import json
import pickle
import shutil
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from paths import TESTS
from PIL import Image
from toy import toy_data

from imgrec_lib import InputError, extract_features, find_runs, load_dataset, load_model, open_run, train_run
from imgrec_lib.data.dataset import Dataset
from imgrec_lib.data.decoding import decode
from imgrec_lib.data.images import ImageStore, open_images
from imgrec_lib.data.storing import prepare_images
from imgrec_lib.features import build_backbone, trunk_activations
from imgrec_lib.files import replacing
from imgrec_lib.matrix import read_matrix
from imgrec_lib.models import build_model
from imgrec_lib.notebooks import notebook_parameters, notebook_path, run_notebook
from imgrec_lib.options import Option, check_options
from imgrec_lib.report import write_report
from imgrec_lib.runs import load_inputs
from imgrec_lib.training import fit, write_checkpoint
from imgrec_lib.training.distributed import process_group

CORPUS = TESTS / "corpus"
SENTENCES: dict[str, str] = yaml.safe_load((CORPUS / "sentences.yaml").read_text(encoding="utf-8"))


def of(folder: str) -> list[str]:
    return [name for name in SENTENCES if name.startswith(f"{folder}/")]


def listing(folder: Path) -> set[str]:
    """Everything below a folder but locks, which are empty and may stay."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix != ".lock"}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, and a cache of its own."""
    monkeypatch.setenv("IMGREC_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache" / "images").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(place: Path, sentence: str, call: Callable[[], Any]) -> None:
    """The call gives this sentence, and the folder holds what it held before."""
    before = listing(place)
    with pytest.raises(InputError, match=sentence) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text and len(text) < 600 and text[-1] in ".?", text
    assert listing(place) == before


def test_the_corpus_is_complete() -> None:
    files = {p.relative_to(CORPUS).as_posix() for p in CORPUS.rglob("*") if p.is_file() and p.parent != CORPUS}
    assert files == SENTENCES.keys() and len(files) >= 40


# Tables


@pytest.mark.parametrize("name", of("interactions"))
def test_interactions(place: Path, name: str) -> None:
    load = lambda: load_dataset("table", interactions=CORPUS / name, min_interactions=3, progress=False)  # noqa: E731
    refused(place, SENTENCES[name], load)


@pytest.mark.parametrize("name", of("items"))
def test_items(place: Path, name: str) -> None:
    (place / "good.csv").write_text("user,item\nu,a\nu,b\nu,c\n")
    (place / "images").mkdir()
    options: dict[str, Any] = {"images": place / "images", "min_interactions": 3, "progress": False}
    refused(
        place,
        SENTENCES[name],
        lambda: load_dataset("table", interactions=place / "good.csv", items=CORPUS / name, **options),
    )


@pytest.mark.parametrize("name", of("hm"))
def test_hm_purchases(place: Path, name: str) -> None:
    from imgrec_lib.data.readers.hm import ATTRIBUTES

    columns = {"article_id": ["1", "2", "3"], "prod_name": "P", **dict.fromkeys(ATTRIBUTES, "x")}
    pd.DataFrame(columns).to_csv(place / "articles.csv", index=False)
    (place / "images" / "00").mkdir(parents=True)
    for item in "123":
        Image.new("RGB", (4, 4)).save(place / "images" / "00" / f"{item}.jpg")
    shutil.copy(CORPUS / name, place / "transactions_train.csv")
    refused(place, SENTENCES[name], lambda: load_dataset("hm", place, min_interactions=3, progress=False))


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        (pd.DataFrame({"user": ["a", None], "item": ["x", "y"]}), "has no 'user' in row 2: fill it in"),
        (pd.DataFrame({"user": ["a"], "item": [np.nan]}), "has no 'item' in row 1: fill it in"),
        (pd.DataFrame({"a": [1]}), r"has no user column \(found: a\)"),
        (pd.DataFrame({"user": [], "item": []}), "is empty: it has no rows"),
        (pd.DataFrame({"user": ["a"], "item": ["x"], "time": [1e300]}), "'time' in row 1: such a number does not say"),
    ],
)
def test_parquet(place: Path, table: pd.DataFrame, sentence: str) -> None:
    table.to_parquet(place / "t.parquet")
    refused(place, sentence, lambda: load_dataset("table", interactions=place / "t.parquet"))


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1 not really PAR1", b"user,item\na,b\n"])
def test_what_is_no_parquet(place: Path, content: bytes) -> None:
    (place / "t.parquet").write_bytes(content)
    sentence = r"t\.parquet cannot be read \(.*\): correct it, or get the file again\."
    refused(place, sentence, lambda: load_dataset("table", interactions=place / "t.parquet"))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"n_users": "many"}, "option 'n_users' of dataset wardrobe must be int, at least 1, not 'many'"),
        ({"n_users": True}, "option 'n_users' of dataset wardrobe must be int, at least 1, not True"),
        ({"n_user": 3}, "unknown option of dataset wardrobe 'n_user': did you mean 'n_users'"),
        ({"split": ["time"]}, r"option 'split' of dataset wardrobe must be str, not \['time'\]"),
        (
            {"image_size": 0, "n_users": 20, "n_items": 30},
            "'image_size' of dataset wardrobe must be int, at least 8, not 0",
        ),
        ({"split": "tim", "n_users": 20, "n_items": 30}, "'tim': did you mean 'time'"),
    ],
)
def test_options(place: Path, options: dict[str, Any], sentence: str) -> None:
    refused(place, sentence, lambda: load_dataset("wardrobe", progress=False, **options))


def test_the_name_of_a_dataset_is_no_path(place: Path) -> None:
    (place / "i.csv").write_text("user,item\nu,a\nu,b\nu,c\n")
    (place / "images").mkdir()
    Image.new("RGB", (4, 4)).save(place / "images" / "a.png")
    options: dict[str, Any] = {"interactions": place / "i.csv", "images": place / "images", "min_interactions": 3}
    with pytest.warns(UserWarning, match="2 of 3 items"):
        dataset = load_dataset("table", name="../../../up" + "x" * 300, image_size=4, progress=False, **options)
    assert dataset.images is not None and len(dataset.images) == 3
    (store,) = [p for p in (place / "cache" / "images").iterdir() if p.is_dir()]
    assert store.name.startswith("..-..-..-upxxx") and {p.name for p in place.iterdir()} == {"cache", "i.csv", "images"}


# The published files of DVBPR: malicious ones are in test_dvbpr.py


def published(path: Path, values: list[Any]) -> Path:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    np.save(path, array, allow_pickle=True)
    return path


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {0: {0: [{"productid": 10**5000}]}},
            r"p\.npy is truncated or damaged near byte \d+ \(a whole number has more",
        ),
        ({4: 10**5000}, r"p\.npy is truncated or damaged near byte \d+ \(a whole number has more than 64 bits\)"),
        (
            {3: {0: {}, "0": {}, 1: {}, 2: {}}, 5: 4},
            r"p\.npy has two items whose keys read alike as text: download it again\.",
        ),
        ({5: 7}, r"p\.npy says that it has 7 items but has 3: download it again\."),
        ({0: {}}, "split is empty: there are no training interactions"),
    ],
)
def test_published(place: Path, change: dict[int, Any], sentence: str) -> None:
    items = {i: {"imgs": b""} for i in range(3)}
    values = [{0: [{"productid": 0}]}, {0: [{"productid": 1}]}, {0: [{"productid": 2}]}, items, 1, 3]
    path = published(place / "p.npy", [change.get(i, value) for i, value in enumerate(values)])
    refused(place, sentence, lambda: load_dataset("dvbpr", path, image_size=4, progress=False))


def test_titles_that_no_file_can_hold_are_mended(place: Path) -> None:
    items = {i: {"imgs": b"", "title": "half \ud800 pair <b>"} for i in range(3)}
    values = [{0: [{"productid": 0}]}, {0: [{"productid": 1}]}, {0: [{"productid": 2}]}, items, 1, 3]
    with pytest.warns(UserWarning, match="3 of 3 items"):
        dataset = load_dataset("dvbpr", published(place / "p.npy", values), image_size=4, progress=False)
    assert dataset.items["name"].tolist() == ["half ? pair <b>"] * 3


# Pictures: a bad one is no error of the dataset; its item shows white and the store says why


def png(width: int, height: int, colour: int = 2, data: bytes = b"") -> bytes:
    """A PNG whose head promises a size, whatever its data."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def encoded(kind: str, size: tuple[int, int] = (40, 40)) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise(size, 60).convert("RGB").save(buffer, kind)
    return buffer.getvalue()


PICTURES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "it is no JPEG, PNG, WebP, GIF, BMP, AVIF or TIFF file"),
    "text": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "it is no JPEG"),
    "ppm": (encoded("PPM"), "it is no JPEG"),
    "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", "it is no JPEG"),
    "head of a jpeg": (encoded("JPEG")[:2], "it is no JPEG"),
    "half a jpeg": (encoded("JPEG")[:900], "of its rows are missing"),
    "half a png": (encoded("PNG")[:900], "of its rows are missing"),
    "half a webp": (encoded("WEBP")[:300], "it is no|broken"),
    "half a gif": (encoded("GIF")[:900], "of its rows are missing"),
    "half a bmp": (encoded("BMP")[:900], "of its rows are missing"),
    "png without pixels": (png(40, 40), "of its rows are missing"),
    "png of no width": (png(0, 40), "it is no|broken"),
    "png of 10 gigapixels": (png(100_000, 100_000), "pixels"),
    "png of 120 megapixels": (png(12_000, 10_000), "12000 x 10000 pixels are more than the 100,000,000 admitted"),
    "gif of 4 gigapixels": (
        b"GIF89a\xff\xff\xff\xff\x00\x00\x00,\x00\x00\x00\x00\xff\xff\xff\xff\x00\x02\x00;",
        "pixels",
    ),
}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("kind", PICTURES)
def test_pictures(kind: str) -> None:
    content, reason = PICTURES[kind]
    with pytest.raises(ValueError, match=reason) as caught:
        decode(content, 8)
    assert "0x" not in str(caught.value), "an address in memory makes two stores differ"


@pytest.mark.parametrize("name", ["a\0b.jpg", "x" * 5000, "nowhere/../../x.jpg"])
def test_odd_names_of_pictures(place: Path, name: str) -> None:
    with pytest.warns(UserWarning, match="1 of 1 items have no usable picture"):
        store = prepare_images([Path(name)], ["a"], place / "store", size=4, progress=False)
    assert not store.present[0] and "there is no file" in store.problems[0][1]


def test_large_pictures_are_decoded_one_at_a_time(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    """Sixteen threads with a picture of 100 megapixels each would need sixteen times the memory."""
    from imgrec_lib.data import decoding

    monkeypatch.setattr(decoding, "LARGE", 100)
    at_once, most, plain = 0, 0, decoding._upright_rgb

    def watched(image: Image.Image) -> Image.Image:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        result = plain(image)
        at_once -= 1
        return result

    monkeypatch.setattr(decoding, "_upright_rgb", watched)
    sources = [encoded("PNG", (200, 200))] * 12
    prepare_images(sources, list("abcdefghijkl"), place / "store", size=4, workers=8, progress=False)
    assert most == 1


@pytest.mark.parametrize("name", of("index"))
def test_indices_of_image_stores(place: Path, name: str) -> None:
    prepare_images([Image.new("RGB", (4, 4))], ["a"], place / "store", size=4, progress=False)
    shutil.copy(CORPUS / name, place / "store" / "index.json")
    refused(place, SENTENCES[name], lambda: open_images(place / "store"))


@pytest.mark.parametrize(
    "content", [b"", b"\x93NUMPY", b"PK\x03\x04", np.lib.format.MAGIC_PREFIX + b"\x01\x00\xff\xff" + b"(" * 70000]
)
def test_pixels_of_image_stores(place: Path, content: bytes) -> None:
    prepare_images([Image.new("RGB", (4, 4))], ["a"], place / "store", size=4, progress=False)
    (place / "store" / "pixels.npy").write_bytes(content)
    sentence = r"pixels\.npy cannot be read \(.*\): delete the folder and prepare the images again\."
    refused(place, sentence, lambda: open_images(place / "store"))


def test_pickled_pixels_are_not_unpickled(place: Path) -> None:
    prepare_images([Image.new("RGB", (4, 4))], ["a"], place / "store", size=4, progress=False)
    np.save(place / "store" / "pixels.npy", np.array([Attack(place / "proof")], dtype=object), allow_pickle=True)
    refused(place, r"pixels\.npy cannot be read", lambda: open_images(place / "store"))


# Features, activations and weights


def store(n: int = 3) -> ImageStore:
    return ImageStore.from_array(np.random.default_rng(0).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8))


class Attack:
    """Unpickling it would make a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        import os

        return os.mkdir, (str(self.folder),)


def damages(values: np.ndarray, place: Path) -> dict[str, Callable[[Path], None]]:
    """Ways to spoil a `.npy` file."""
    return {
        "empty": lambda path: path.write_bytes(b""),
        "cut": lambda path: path.write_bytes(path.read_bytes()[:-5]),
        "text": lambda path: path.write_text("features"),
        "fewer rows": lambda path: np.save(path, values[:-1]),
        "another type": lambda path: np.save(path, values.astype(np.float64)),
        "a pickle": lambda path: np.save(path, np.array([Attack(place / "proof")], dtype=object), allow_pickle=True),
        "gone": lambda path: path.unlink(),
    }


@pytest.mark.slow
@pytest.mark.parametrize("damage", damages(np.empty((2, 1)), Path()))
def test_cached_features(place: Path, damage: str) -> None:
    extract = lambda: extract_features(store(), weights="random", size=32, progress=False)  # noqa: E731
    values = np.array(extract().values)  # a copy: the file is about to be cut
    (path,) = (place / "cache" / "features").glob("*/values.npy")
    damages(values, place)[damage](path)
    refused(place, "the features in .* are damaged: delete the folder and extract them again", extract)
    shutil.rmtree(path.parent)
    np.testing.assert_array_equal(extract().values, values)


@pytest.mark.slow
@pytest.mark.parametrize("damage", [name for name in damages(np.empty((2, 1)), Path()) if name != "gone"])
def test_cached_activations(place: Path, damage: str) -> None:
    network = build_backbone(weights="default", size=32)
    prepare = lambda: trunk_activations(store(), network, progress=False)  # noqa: E731
    kept = prepare().rows(torch.arange(3)).clone()
    (path,) = (place / "cache" / "activations").glob("*.npy")
    damages(np.load(path), place)[damage](path)
    refused(place, "the activations in .* are damaged: delete the file, it will be made again", prepare)
    path.unlink()
    assert torch.equal(prepare().rows(torch.arange(3)), kept)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("w.pth", b"", "no PyTorch file of plain tensors: save a state dict into it with torch.save"),
        ("w.pth", pickle.dumps(Attack(Path("proof")), 2), "no PyTorch file of plain tensors"),
        ("w.pth", pickle.dumps({"a": 1}, 2), "no PyTorch file of plain tensors|holds no state dict"),
        ("w.safetensors", b"", r"no intact safetensors file \(.*\): get it again"),
        ("w.safetensors", struct.pack("<Q", 2**62) + b"{}", "no intact safetensors file"),
        ("w-deadbeef.pth", b"x", "is damaged or was changed: its SHA-256 begins"),
    ],
)
def test_weights_files(place: Path, name: str, content: bytes, sentence: str) -> None:
    (place / name).write_bytes(content)
    refused(place, sentence, lambda: build_backbone(weights=place / name, size=32))


def test_weights_that_run_code_are_refused(place: Path) -> None:
    torch.save({"a": Attack(place / "proof")}, place / "w.pth")
    refused(place, "no PyTorch file of plain tensors", lambda: build_backbone(weights=place / "w.pth", size=32))


def test_features_that_are_not_finite_name_their_item(small_wardrobe: Dataset) -> None:
    features = np.zeros((small_wardrobe.n_items, 3), np.float32)
    for bad in (np.nan, np.inf, -np.inf):
        features[7, 1] = bad
        item = small_wardrobe.items["item"][7]
        with pytest.raises(InputError, match=f"the features of item '{item}' are not finite: extract them again"):
            small_wardrobe.training_data(features, in_order=True)
    features[7] = np.inf, -np.inf, 0
    with pytest.raises(InputError, match="are not finite"):
        small_wardrobe.training_data(features, in_order=True)
    features[7] = np.finfo(np.float32).max  # their sum is not finite, they are
    assert small_wardrobe.training_data(features, in_order=True).features is features


# Checkpoints and runs


def broken_checkpoints(path: Path) -> dict[str, tuple[Callable[[], Any], str]]:
    whole = path.read_bytes() if path.exists() else b""
    tensors = {"model": {"w": torch.ones(2)}, "best": {}, "optimiser": {}}
    unreadable = r"t\.safetensors is no readable checkpoint of imgrec \(.*\): delete it and train again"
    unfit = r"t\.safetensors does not fit this training \(.*\): delete it to train anew"
    return {
        "empty": (lambda: path.write_bytes(b""), unreadable),
        "cut": (lambda: path.write_bytes(whole[:-9]), unreadable),
        "cut in the head": (lambda: path.write_bytes(whole[:20]), unreadable),
        "a head of 4 exabytes": (lambda: path.write_bytes(struct.pack("<Q", 2**62) + whole[8:]), unreadable),
        "a pickle": (lambda: path.write_bytes(pickle.dumps({"a": 1})), unreadable),
        "of another run": (
            lambda: write_checkpoint(path, tensors, {}, "y"),
            r"is of 'y', not of 'x': choose another folder, or delete it to train anew",
        ),
        "of another version": (lambda: write_checkpoint(path, tensors, {"epochs": 3}, "x"), unfit),
        "of another model": (lambda: write_checkpoint(path, tensors, {"phase": 0, "epoch": 1}, "x"), unfit),
        "in a phase that is none": (lambda: write_checkpoint(path, tensors, {"phase": 7}, "x"), unfit),
    }


@pytest.mark.parametrize("damage", broken_checkpoints(Path("t.safetensors")))
def test_checkpoints(place: Path, damage: str) -> None:
    data, path = toy_data(), place / "t.safetensors"
    options: dict[str, Any] = {"checkpoint": path, "identity": "x", "save_every": 0.0, "progress": False}

    def stop_at_the_third(model: Any, calls: list[int] = []) -> float:  # noqa: B006
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return 0.5

    with pytest.raises(KeyboardInterrupt):
        fit(build_model("bpr-mf", data, epochs=4), data, stop_at_the_third, **options)
    spoil, sentence = broken_checkpoints(path)[damage]
    spoil()
    refused(place, sentence, lambda: fit(build_model("bpr-mf", data, epochs=4), data, lambda _: 0.5, **options))


@pytest.mark.parametrize("name", of("record"))
def test_records_of_runs(place: Path, name: str) -> None:
    (place / "run").mkdir()
    shutil.copy(CORPUS / name, place / "run" / "run.json")
    refused(place, SENTENCES[name], lambda: open_run(place / "run"))
    refused(place, SENTENCES[name], lambda: find_runs(place))
    refused(place, SENTENCES[name], lambda: write_report(place, place / "report", progress=False))


def test_a_deep_record(place: Path) -> None:
    (place / "run.json").write_text("[" * 100_000)
    refused(place, r"run\.json is damaged", lambda: open_run(place))


@pytest.fixture(scope="module")
def finished(small_wardrobe: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    train_run(small_wardrobe, "bpr-mf", folder, parameters={"epochs": 1, "factors": 4}, progress=False)
    return folder


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("curve.csv", b"", r"curve\.csv is missing or damaged \(.*\): delete the run's folder and train it again"),
        ("curve.csv", b"phase,epoch\n1,0\n", r"curve\.csv has no column 'validation_auc': delete the run's folder"),
        ("curve.csv", None, r"curve\.csv is missing or damaged"),
        ("per_user.parquet", b"PAR1", r"per_user\.parquet is missing or damaged"),
        ("per_user.parquet", None, r"per_user\.parquet is missing or damaged"),
        ("model.safetensors", b"", r"model\.safetensors is no readable checkpoint"),
        ("model.safetensors", None, r"there is no checkpoint at .*model\.safetensors: train the model first"),
    ],
)
def test_files_of_a_run(
    place: Path, finished: Path, small_wardrobe: Dataset, file: str, content: bytes | None, sentence: str
) -> None:
    shutil.copytree(finished, place / "run")
    if content is None:
        (place / "run" / file).unlink()
    else:
        (place / "run" / file).write_bytes(content)
    run = open_run(place / "run")
    use = {"curve.csv": lambda: run.curve, "per_user.parquet": lambda: run.per_user}
    refused(place, sentence, use.get(file, lambda: load_model(run, small_wardrobe)))


def test_what_killed_writers_left_is_removed_and_what_is_being_written_is_not(
    place: Path, finished: Path, small_wardrobe: Dataset
) -> None:
    folder = place / "run"
    shutil.copytree(finished, folder)
    whole = listing(folder)
    (folder / ".run.json.abc.part").mkdir()
    (folder / ".run.json.abc.part" / "run.json").write_text("{")
    with replacing(folder / "curve.csv") as temporary:
        temporary.write_text("phase")
        train_run(small_wardrobe, "bpr-mf", folder, parameters={"epochs": 1, "factors": 4}, progress=False)
        assert temporary.exists() and not (folder / ".run.json.abc.part").exists()
        shutil.copy(finished / "curve.csv", temporary)
    assert listing(folder) == whole


def test_a_record_that_does_not_fit_its_weights(place: Path, finished: Path, small_wardrobe: Dataset) -> None:
    shutil.copytree(finished, place / "run")
    path = place / "run" / "run.json"
    record = open_run(place / "run").record
    path.write_text(json.dumps(replace(record, parameters=record.parameters | {"factors": 5}).to_json()))
    sentence = r"model\.safetensors does not fit its run\.json \(.*size mismatch.*\): delete the run and train it again"
    before = listing(place)
    with pytest.raises(InputError, match=sentence):
        load_model(open_run(place / "run"), small_wardrobe)
    assert listing(place) == before


@pytest.mark.parametrize(
    ("requested", "sentence"),
    [
        ({}, "run run does not say how its dataset was loaded: load it yourself and use load_model"),
        ({"dataset": "wardrob"}, "unknown dataset 'wardrob': did you mean 'wardrobe'"),
        (
            {"dataset": "hm", "root": "/nowhere"},
            "the data of run run are not at /nowhere: say where they lie now with --root",
        ),
        ({"dataset_options": {"n_users": "x"}}, "option 'n_users' of dataset wardrobe must be int"),
    ],
)
def test_what_a_run_says_of_its_data(place: Path, finished: Path, requested: dict[str, Any], sentence: str) -> None:
    shutil.copytree(finished, place / "run")
    path = place / "run" / "run.json"
    full = {
        "dataset": "wardrobe",
        "root": "",
        "dataset_options": {},
        "backbone": "efficientnet-lite0",
        "weights": "default",
        "feature_options": {},
    }
    asked = full | requested if requested else {}
    path.write_text(json.dumps(replace(open_run(place / "run").record, requested=asked).to_json()))
    refused(place, sentence, lambda: load_inputs(open_run(place / "run")))


# Matrices and notebooks


@pytest.mark.parametrize("name", of("matrix"))
def test_matrices(place: Path, name: str) -> None:
    refused(place, SENTENCES[name], lambda: read_matrix(CORPUS / name))


@pytest.mark.parametrize("content", ["[" * 100_000, "\n".join(" " * i + "a:" for i in range(1000))])
def test_a_deep_matrix(place: Path, content: str) -> None:
    (place / "deep.yaml").write_text(content)
    sentence = r"deep\.yaml is nested more than 20 levels deep: a matrix is not\."
    refused(place, sentence, lambda: read_matrix(place / "deep.yaml"))


def test_a_matrix_that_is_no_file(place: Path) -> None:
    refused(
        place,
        r"there is no matrix file .*nowhere\.yaml \(.*\): check the path",
        lambda: read_matrix(Path("nowhere.yaml")),
    )
    refused(place, r"there is no matrix file", lambda: read_matrix(place))


VALUES: dict[str, Any] = {"str": 3, "int": "three", "float": "0.5", "bool": 1, "list": "a", "dict": [1]}


@pytest.mark.parametrize(
    "notebook", ["01_data", "02_features", "03_train", "04_compare", "05_neighbours", "06_end_to_end"]
)
def test_parameters_of_notebooks(place: Path, notebook: str) -> None:
    """Every parameter of every notebook: another type gets the sentence, and no kernel is started."""
    for name, parameter in notebook_parameters(notebook).items():
        sentence = rf"parameter '{name}' of notebook {notebook} must be {parameter.type}(, at least 0)?, not "
        wrong = {name: VALUES[parameter.type]}
        refused(place, sentence, partial(run_notebook, notebook, wrong, place / "out" / "n.ipynb"))
    refused(
        place,
        f"unknown parameter of notebook {notebook} 'no such thing'",
        lambda: run_notebook(notebook, {"no such thing": 1}, place / "n.ipynb"),
    )


@pytest.mark.parametrize("name", ["../01_data", "/etc/passwd", "01_data.ipynb", ""])
def test_names_of_notebooks_are_no_paths(place: Path, name: str) -> None:
    refused(place, "unknown notebook", lambda: notebook_path(name))


def test_a_device_that_does_not_exist() -> None:
    with (
        pytest.raises(InputError, match=r"device 'cud' does not exist \(.*\): use 'cpu' or 'cuda'\."),
        process_group("cud"),
    ):
        pass


def test_a_sentence_gives_no_orders_to_a_terminal() -> None:
    error = InputError("file a\nb\x1b[2J\x07\u202e has no 'x': " + "y" * 5000 + " end.")
    assert str(error).startswith(r"file a b\x1b[2J\x07\u202e has no 'x': yyy") and str(error).endswith("y end.")
    assert len(str(error)) < 1100 and str(error).isprintable()
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_a_long_value_is_cut_in_the_sentence() -> None:
    with pytest.raises(InputError) as caught:
        check_options("this notebook", {"seed": Option(int)}, {"seed": "x" * 10**6})
    assert len(str(caught.value)) < 300
