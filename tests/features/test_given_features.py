"""Vectors that people bring: every form of file gives each item its own vector, by id, or one sentence."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from commands import call
from narrow import not_none
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from imgrec_lib import InputError, evaluate, open_trained, train_run
from imgrec_lib.data.dataset import Dataset
from imgrec_lib.explorer import Runs, State, answer
from imgrec_lib.features import extraction, read_features
from imgrec_lib.request import Request
from imgrec_lib.runs import Run

CATALOGUE = np.array(["10", "2", "3", "007", "x"])
IDS = ["x", "007", "2", "10", "3"]
VECTORS = np.arange(15, dtype=np.float64).reshape(5, 3) ** 2
RIGHT = VECTORS[[3, 2, 4, 1, 0]]
"""The vectors in the order of the catalogue."""


def write_shop(folder: Path, n_users: int = 30, n_items: int = 25) -> None:
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows = [f"u{u},{i}" for u in range(n_users) for i in rng.choice(n_items, 6, replace=False)]
    (folder / "interactions.csv").write_text("user,item\n" + "\n".join(rows) + "\n")
    (folder / "items.csv").write_text("item\n" + "".join(f"{i}\n" for i in range(n_items)))


def files(folder: Path) -> dict[str, Path]:
    """The vectors in every form."""
    made = {name: folder / name for name in (
        "a.npy", "b.npz", "list.parquet", "wide.parquet", "index.parquet", "c.safetensors", "d.pt", "e.pt", "half.npy",
    )}  # fmt: skip
    np.save(made["a.npy"], VECTORS)
    np.save(made["half.npy"], VECTORS.astype(np.float16))
    for name in ("a", "c", "d", "half"):
        (folder / f"{name}.ids.txt").write_text("\n".join(IDS) + "\n")
    np.savez(made["b.npz"], ids=np.array(IDS), features=VECTORS.astype(np.int64))
    # An item without a vector, which the catalogue does not have either.
    listed = [*VECTORS, None]
    pd.DataFrame({"article_id": [*IDS, "no"], "embedding": listed}, index=[9, 8, 7, 6, 5, 4]).to_parquet(
        made["list.parquet"]
    )
    pd.DataFrame(VECTORS, columns=["a", "b", "c"], index=IDS).to_parquet(made["index.parquet"])
    pd.DataFrame(VECTORS, columns=["a", "b", "c"]).assign(id=IDS).to_parquet(made["wide.parquet"])
    save_file({"vectors": VECTORS}, made["c.safetensors"])
    torch.save(torch.from_numpy(VECTORS), made["d.pt"])
    torch.save({"ids": IDS, "embeddings": torch.from_numpy(VECTORS).half()}, made["e.pt"])
    return made


def test_every_form_of_file_joins_by_id(tmp_path: Path) -> None:
    made = files(tmp_path)
    for name, path in made.items():
        features = read_features(path, CATALOGUE)
        assert features.values.dtype == np.float32 and (features.values == RIGHT).all(), name
    assert len({read_features(path, CATALOGUE).fingerprint for path in made.values()}) == 1
    frame = pd.DataFrame(VECTORS, index=IDS)
    assert (read_features(frame, CATALOGUE).values == RIGHT).all()
    assert (read_features(torch.from_numpy(VECTORS), CATALOGUE, ids=IDS).values == RIGHT).all()
    # Ids are one in whatever way Unicode writes them, and blanks around them do not count, as in the catalogue.
    assert (read_features(VECTORS, CATALOGUE, ids=[f" {name}\u200b" for name in IDS]).values == RIGHT).all()
    assert (read_features(RIGHT, CATALOGUE, in_order=True).values == RIGHT).all()
    both = read_features({"picture": made["a.npy"], "text": frame[[1]]}, CATALOGUE)
    assert (both.values == np.c_[RIGHT, RIGHT[:, 1]]).all()
    assert both.description["features"] == "picture (3 dimensions), text (1 dimensions)"


def test_missing_and_unknown_items_are_counted_and_named() -> None:
    frame = pd.DataFrame(VECTORS, index=["x", "007", "2", "unknown", "nor this"])
    with pytest.warns(UserWarning) as warned:
        features = read_features(frame, CATALOGUE, standardise=True)
    texts = [str(w.message) for w in warned]
    assert texts == [
        "the features: 2 of 5 vectors are of items that the catalogue does not have ('unknown', 'nor this'); they are "
        "left out.",
        "the features: 2 of 5 items have no vector ('10', '3'); zeros stand for them.",
    ]
    assert (features.values[[0, 2]] == 0).all()
    # Mean and spread are those of the three items that have a vector.
    some = VECTORS[[2, 1, 0]]
    assert features.values[[1, 3, 4]] == pytest.approx((some - some.mean(0)) / some.std(0), rel=1e-5)


def test_prepared_by_option() -> None:
    rows = np.random.default_rng(0).normal(size=(5, 4))
    unit = read_features(rows, CATALOGUE, in_order=True, unit_length=True).values
    assert unit == pytest.approx(rows / np.linalg.norm(rows, axis=1, keepdims=True), rel=1e-5)
    reduced = read_features(rows, CATALOGUE, in_order=True, components=2).values
    centred = rows - rows.mean(0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    assert np.abs(reduced) == pytest.approx(np.abs(centred @ axes[:2].T), abs=1e-5)
    with pytest.raises(InputError, match="at most 4 principal components"):
        read_features(rows, CATALOGUE, in_order=True, components=5)


def test_sentences(tmp_path: Path) -> None:
    pickled = tmp_path / "pickled.npy"
    np.save(pickled, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    (tmp_path / "short.ids.txt").write_text("x\n2\n\n")
    torch.save({"ids": IDS, "vectors": torch.ones(5, 2), "made": Path("by whom")}, tmp_path / "code.pt")
    torch.save({str(i): torch.ones(2) for i in range(9)}, tmp_path / "many.pt")
    np.save(tmp_path / "short.npy", VECTORS)
    np.save(tmp_path / "bare.npy", VECTORS)
    (tmp_path / "no.parquet").write_text("nothing")
    pd.DataFrame({"a": [1.0]}).to_parquet(tmp_path / "nameless.parquet")
    bad = VECTORS.copy()
    bad[1, 1] = np.nan
    twice = ["10", "10", "2", "2", "3", "3", "x", "x"]
    cases: list[tuple[Any, dict[str, Any], str]] = [
        (VECTORS, {}, r"does not say which item each of its 5 rows is: give ids .* or in_order=True"),
        (tmp_path / "bare.npy", {}, r"bare\.npy does not say which item each of its 5 rows is"),
        (VECTORS[:4], {"in_order": True}, "has 4 rows but the catalogue has 5 items: give their ids"),
        (
            VECTORS,
            {"ids": ["x", "x", "2", "3", "10"]},
            r"names 1 items more than once \('x'\): keep one vector of each",
        ),
        (VECTORS, {"ids": ["a", "b", "c", "d", "e"]}, "has no item of the catalogue: its ids are like 'a', .* '10'"),
        (VECTORS[:1], {"ids": ["7"]}, "its ids are like '7', .*; 1 of them differ by leading zeros alone"),
        (VECTORS, {"ids": [1.5, 2, 3, 4, 5]}, r"has the id 1\.5: ids must be text or whole numbers"),
        (bad, {"ids": IDS}, r"the vectors of 1 items are not finite \('007'\): compute them again"),
        (np.full((5, 3), np.inf), {"ids": IDS}, r"5 items are not finite \('10', '2', '3', \.\.\.\)"),
        (np.ones((8, 2)), {"ids": twice}, r"names 4 items more than once \('10', '2', '3', \.\.\.\)"),
        (np.array([["a"]]), {"in_order": True}, "must be numbers in a table of items by dimensions"),
        (VECTORS[0], {"in_order": True}, "must be numbers in a table of items by dimensions"),
        (tmp_path / "short.npy", {}, "has 5 vectors but 2 ids: give one id for each"),
        (pickled, {"in_order": True}, r"pickled\.npy cannot be read .*: write numbers only, without pickled objects"),
        (tmp_path / "no.parquet", {}, r"no\.parquet cannot be read"),
        (tmp_path / "nameless.parquet", {}, "has no column of ids: call it 'item'"),
        (tmp_path / "nowhere.npy", {}, r"there is no file of features .*nowhere\.npy: check the path"),
        (np.empty((0, 3)), {"ids": []}, "must be numbers in a table of items by dimensions"),
        (tmp_path / "code.pt", {}, r"code\.pt is damaged, or holds more than tensors and text: save these alone"),
        (tmp_path / "many.pt", {}, r"one table of vectors, not 0 \(it holds '0', '1', '2', \.\.\.\)"),
        (tmp_path / "a.csv", {}, r"is no file of features: its ending must be one of \.npy"),
    ]
    for source, options, sentence in cases:
        with pytest.raises(InputError, match=sentence):
            read_features(source, CATALOGUE, **options)


def test_from_a_file_to_lists_of_neighbours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A shop without pictures: the vectors on the command line, the run opened again, its items alike by them."""
    write_shop(tmp_path / "shop")
    order = np.random.default_rng(1).permutation(25)
    vectors = np.random.default_rng(2).normal(size=(25, 5)).astype(np.float32)
    pd.DataFrame({"item": order.astype(str), "vector": list(vectors[order])}).to_parquet(tmp_path / "clip.parquet")
    monkeypatch.chdir(tmp_path)
    status, _, err = call(
        monkeypatch, capsys, "train", "--no-notebook", "--dataset", "table", "--root", "shop", "--model", "vbpr",
        "-o", "min_interactions=3", "-p", "epochs=1", "--features", "clip.parquet", "--out", "run",
    )  # fmt: skip
    assert status == 0, err
    asked = json.loads((tmp_path / "run" / "run.json").read_text())["requested"]
    assert asked["feature_files"] == {"clip": str(tmp_path / "clip.parquet")}
    trained = open_trained(tmp_path / "run", progress=False)
    assert trained.features is not None
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    nearest = np.argsort(-(unit @ unit[7]), kind="stable")
    found = trained.similar(["7"], 3, by="picture")["similar"].tolist()
    assert found == [str(i) for i in nearest if i != 7][:3]
    (tmp_path / "clip.parquet").unlink()
    with pytest.raises(InputError, match=r"there is no file of features .*clip\.parquet: check the path"):
        open_trained(tmp_path / "run", progress=False)
    status, _, err = call(
        monkeypatch, capsys, "train", "--no-notebook", "--model", "vbpr", "--features", "no.npy", "--out", "other"
    )
    assert status == 2 and "there is no file of features no.npy" in err


def test_arrays_are_never_taken_by_an_order_that_nobody_asked_for(small_wardrobe: Dataset) -> None:
    ids = small_wardrobe.items["item"]
    rows = np.arange(len(ids), dtype=np.float64)[:, None]
    with pytest.raises(InputError, match="an array does not say which item each of its rows is"):
        small_wardrobe.training_data(rows)
    with pytest.raises(
        InputError, match="features must be what extract_features or read_features returns, not ndarray"
    ):
        train_run(small_wardrobe, "vbpr", Path("never"), features=rows)  # type: ignore[arg-type]
    shuffled = np.random.default_rng(0).permutation(len(ids))
    table = pd.DataFrame(rows[shuffled], index=ids.to_numpy()[shuffled])
    by_id = not_none(small_wardrobe.training_data(table).features)
    assert (by_id == rows).all() and by_id.dtype == np.float32
    assert (not_none(small_wardrobe.training_data(rows, in_order=True).features) == rows).all()
    with pytest.raises(
        InputError, match=f"the features have no row of 2 items \\('{ids.iloc[-2]}', '{ids.iloc[-1]}'\\)"
    ):
        small_wardrobe.training_data(pd.DataFrame(rows[:-2], index=ids[:-2]))
    with pytest.raises(InputError, match=f"more than one row of 1 items \\('{ids.iloc[0]}'\\)"):
        small_wardrobe.training_data(pd.DataFrame(np.r_[rows, rows[:1]], index=[*ids, ids.iloc[0]]))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_run_made_on_a_gpu_opens_on_a_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pictures beside a file, prepared by options, in bfloat16 on another machine: all that opens a run opens it here.

    What bfloat16 changes is computed here, too; the record then says what CUDA's would.
    """
    shop = tmp_path / "shop"
    write_shop(shop)
    (shop / "images").mkdir()
    rng = np.random.default_rng(3)
    for i in range(25):
        Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8)).resize((32, 32)).save(shop / "images" / f"{i}.png")
    pd.DataFrame({"item": map(str, range(25)), "vector": list(rng.normal(size=(25, 12)))}).to_parquet(
        shop / "c.parquet"
    )
    request = Request(
        "vbpr", dataset="table", root=str(shop), dataset_options={"min_interactions": 3, "image_size": 32},
        parameters={"epochs": 3, "factors": 8, "visual_factors": 8},
        feature_files={"look": "pictures", "clip": str(shop / "c.parquet")},
        feature_options={"size": 32, "standardise": True, "components": 12},
    )  # fmt: skip
    dataset = request.load_dataset(progress=False)
    here = request.load_features(dataset, progress=False)
    with monkeypatch.context() as on_a_gpu:
        # The network's weights and activations are rounded as mixed precision rounds them.
        run_network = extraction._features

        def in_bfloat16(network: Any, *arguments: Any) -> Any:
            half = copy.deepcopy(network).bfloat16().float()
            return (torch.from_numpy(block).bfloat16().float().numpy() for block in run_network(half, *arguments))

        on_a_gpu.setattr(extraction, "_features", in_bfloat16)
        on_a_gpu.setenv("IMGREC_CACHE", str(tmp_path / "cache of the gpu"))
        there = request.load_features(dataset, progress=False)
    there = replace(there, description=there.description | {"precision": "bfloat16"})
    run = train_run(dataset, request, tmp_path / "runs" / "run", features=there, progress=False)
    record = json.loads((run.folder / "run.json").read_text())
    assert record["features"]["precision"] == "bfloat16"
    record["requested"]["device"], record["device"] = "cuda", "NVIDIA H100 80GB HBM3"
    (run.folder / "run.json").write_text(json.dumps(record))
    shop.rename(tmp_path / "laptop")
    opened = open_trained(run.folder, root=tmp_path / "laptop", progress=False)
    assert opened.features is not None
    # Principal components of what is rounded otherwise are others: the run's own are wanted, not those learnt anew.
    near, far = (np.linalg.norm(there.values - other.values) for other in (opened.features, here))
    assert near < 0.15 * np.linalg.norm(there.values) and far > 4 * near
    again = evaluate(opened.model, opened.dataset, seed=0).metrics["exact"]
    assert again["auc"] == pytest.approx(run.metrics["exact"]["auc"], abs=0.02)
    root = ("--root", str(tmp_path / "laptop"))
    status, out, err = call(monkeypatch, capsys, "evaluate", str(run.folder), *root, "--json")
    assert status == 0 and json.loads(out)["exact"]["auc"] == pytest.approx(again["auc"]), err
    page = tmp_path / "page.md"
    status, _, err = call(monkeypatch, capsys, "report", str(tmp_path / "runs"), *root, "--out", str(page))
    assert status == 0, err
    shown = answer(Runs(tmp_path / "runs", root={"": str(tmp_path / "laptop")}), State(item="7", view="neighbours"))
    assert "By look" in shown.html and "By clip" in shown.html
    # The vectors count, not what their description says, but for a run of a version that kept no sketch of them.
    record["features"]["weights_sha256"] = "0" * 16
    (run.folder / "run.json").write_text(json.dumps(record))
    open_trained(run.folder, root=tmp_path / "laptop", progress=False)
    forget_sketch(run)
    with pytest.raises(InputError, match="needs the features it was trained with: weights_sha256 '0000000000000000'"):
        open_trained(run.folder, root=tmp_path / "laptop", progress=False)


def forget_sketch(run: Run) -> None:
    """Make a run what earlier versions left."""
    path = run.folder / "model.safetensors"
    with safe_open(path, framework="np") as file:
        metadata = file.metadata()
    save_file({name: each for name, each in load_file(path).items() if not name.startswith("sketch.")}, path, metadata)


def test_a_run_knows_its_features_by_content_and_tolerance(tmp_path: Path) -> None:
    """Vectors rounded otherwise are the run's; of another encoder, another picture or another order not."""
    write_shop(tmp_path / "shop")
    rng = np.random.default_rng(4)
    vectors, path = rng.normal(size=(25, 40)).astype(np.float32), tmp_path / "clip.parquet"

    def write(values: np.ndarray) -> None:
        pd.DataFrame({"item": map(str, range(25)), "vector": list(values)}).to_parquet(path)

    def score() -> np.ndarray:
        opened = open_trained(run.folder, progress=False)
        return opened.model.scorer().block(torch.arange(3)).detach().numpy()

    write(vectors)
    request = Request(
        "vbpr", dataset="table", root=str(tmp_path / "shop"), dataset_options={"min_interactions": 3},
        parameters={"epochs": 2, "factors": 4, "visual_factors": 4}, feature_files={"clip": str(path)},
        feature_options={"standardise": True},
    )  # fmt: skip
    dataset = request.load_dataset(progress=False)
    run = train_run(
        dataset, request, tmp_path / "run", features=request.load_features(dataset, progress=False), progress=False
    )
    scores = score()
    # float32 of another summation, half precision, and bfloat16.
    for rounded in (
        vectors * np.float32(1 + 1e-6),
        vectors.astype(np.float16),
        torch.tensor(vectors).bfloat16().float(),
    ):
        write(np.asarray(rounded))
        np.testing.assert_allclose(score(), scores, atol=0.02 * np.ptp(scores))
    swapped, replaced = vectors[[1, 0, *range(2, 25)]], vectors.copy()
    replaced[7] = rng.normal(size=40)
    refused: dict[str, np.ndarray] = {
        "2 of 25": swapped, "1 of 25": replaced, "2[45] of 25": vectors[rng.permutation(25)],
        "25 of 25": vectors @ rng.normal(size=(40, 30)),
    }  # fmt: skip
    for said, others in refused.items():
        write(others)
        with pytest.raises(InputError, match=rf"needs the features .* content '.*', not '.*', {said} items have other"):
            score()
    # What earlier versions left goes by the fingerprint of the file's content, as it did.
    forget_sketch(run)
    write(vectors)
    np.testing.assert_array_equal(score(), scores)
    write(vectors * np.float32(1 + 1e-6))
    with pytest.raises(InputError, match=r"needs the features it was trained with: content '[0-9a-f]{16}', not"):
        score()
