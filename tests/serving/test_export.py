"""Towers as ONNX: what onnxruntime computes is what the library computes, for as many rows as one likes."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from commands import call
from narrow import not_none
from paths import ROOT
from PIL import Image

from imgrec_lib import InputError, Request, Trained, export_towers, open_trained, train_run
from imgrec_lib.models.base import InnerProduct, PictureEmbedding
from imgrec_lib.serving.pictures import backbone_of, score_picture
from imgrec_lib.serving.vectors import write_vectors

SIZE, N_ITEMS, RTOL = 32, 50, 1e-4
CHAPTER = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
DATA = {"n_users": 60, "n_items": N_ITEMS, "image_size": SIZE}

warnings.filterwarnings("ignore", message=".*stored with 32 pixels.*")


def trained(folder: Path, model: str, **asked: Any) -> Trained:
    request = Request(model, dataset="wardrobe", dataset_options=DATA, **asked)
    dataset, features = request.load(progress=False)
    train_run(dataset, request, folder / model, features=features, progress=False)
    return open_trained(folder / model, progress=False)


def run(path: Path, **inputs: np.ndarray) -> np.ndarray:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, inputs)[0]


def close(found: np.ndarray, expected: torch.Tensor) -> None:
    wanted = expected.numpy()
    np.testing.assert_allclose(found, wanted, RTOL, RTOL * np.abs(wanted).max())


def vectors_file(folder: Path) -> Path:
    """Features of the catalogue as a file: some of each item's pixels."""
    dataset = Request("poprank", dataset="wardrobe", dataset_options=DATA).load_dataset(progress=False)
    pixels = np.asarray(not_none(dataset.images).pixels).reshape(N_ITEMS, -1)[:, ::64].astype(np.float32) / 255
    with (folder / "vectors.npz").open("wb") as file:
        np.savez(file, ids=dataset.items["item"].to_numpy().astype(str), vectors=pixels)
    return folder / "vectors.npz"


@pytest.mark.slow
@pytest.mark.parametrize("model", ["vbpr", "deepstyle", "fm-visual", "imgrec-dir", "imgrec-ft"])
def test_features_become_the_vectors_of_new_items(tmp_path: Path, model: str) -> None:
    files = {"own": str(vectors_file(tmp_path))}
    opened = trained(tmp_path, model, feature_files=files, parameters={"epochs": 1})
    (path,) = export_towers(opened, tmp_path / "towers")
    features = torch.from_numpy(np.array(not_none(opened.features).values))
    embedding = opened.model
    assert isinstance(embedding, PictureEmbedding)
    for rows in (slice(0, 1), slice(7, 20)):
        expected = embedding.embed_pictures(torch.empty(0), features[rows])
        close(run(path, features=features[rows].numpy()), expected)
    # The file holds what a picture needs, and no table of the catalogue.
    assert not [each.name for each in onnx.load(path).graph.initializer if N_ITEMS in each.dims]


@pytest.mark.slow
def test_a_picture_passes_the_backbone_on_its_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = trained(tmp_path, "visrank", parameters={"aggregate": "mean"}, feature_options={"size": 48})
    item, user, ids = export_towers(opened, tmp_path / "towers")
    scorer, images = opened.scorer, not_none(opened.dataset.images)
    assert isinstance(scorer, InnerProduct) and isinstance(opened.model, PictureEmbedding)
    # Items are their pictures: those of the catalogue have the vectors that the run has.
    for rows in (slice(0, 1), slice(3, 8)):
        pixels = np.array(images.pixels[rows])
        vectors = run(item, pixels=pixels)
        close(vectors, scorer.items[rows])
        close(vectors, opened.model.embed_pictures(torch.empty(0), backbone_of(opened)(torch.from_numpy(pixels))))
    assert ids.read_text().split() == opened.item_ids.tolist()
    owned = opened.dataset.train
    padded = np.full((2, 1 + owned.history_lengths.max()), -1)
    for row, who in enumerate((5, 17)):
        padded[row, : owned.history_lengths[who]] = owned.of(who)
    close(run(user, basket=padded), scorer.users[[5, 17]])
    about = onnxruntime.InferenceSession(item).get_modelmeta().custom_metadata_map
    assert about["pixels"] == "(pictures, 32, 32, 3) uint8, RGB; resized by Pillow (squash, bicubic) to 32 x 32 pixels"
    assert (about["backbone.size"], about["backbone.preprocessing"]) == ("48", "efficientnet-lite")

    # The chapter's recipe, as it stands, scores a picture as the library does.
    Image.fromarray(np.array(images.pixels[7])).save(tmp_path / "dress.jpg")
    write_vectors(opened, tmp_path / "vectors", form="safetensors")
    monkeypatch.chdir(tmp_path)
    recipe: dict[str, Any] = {}
    exec(CHAPTER.split("```python\n")[1].split("```")[0], recipe)
    expected = score_picture(opened, tmp_path / "dress.jpg", opened.users)["score"].to_numpy()
    close(recipe["scores"], torch.from_numpy(expected))


@pytest.mark.slow
def test_networks_of_their_own(tmp_path: Path) -> None:
    opened = trained(tmp_path, "dvbpr", parameters={"size": 16, "units": 8, "factors": 4, "epochs": 1})
    (path,) = export_towers(opened, tmp_path / "dvbpr-towers")
    pictures = np.array(opened.model.pictures.pixels[:5])  # type: ignore[union-attr,index]
    close(run(path, pixels=pictures), not_none(opened.learned)[:5])
    about = onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map
    assert about["pixels"].endswith("to 32 x 32 pixels and then, bicubic, to 16 x 16 pixels")

    opened = trained(tmp_path, "imgrec-ete", parameters={"size": SIZE, "phase1_epochs": 1, "phase2_epochs": 1})
    (path,) = export_towers(opened, tmp_path / "ete-towers")
    pixels = np.array(not_none(opened.dataset.images).pixels[:5])
    assert isinstance(opened.model, PictureEmbedding)
    close(run(path, pixels=pixels), opened.model.embed_pictures(torch.from_numpy(pixels), torch.empty(0)))


@pytest.mark.slow
def test_both_towers_of_two_tower(tmp_path: Path) -> None:
    files = {"own": str(vectors_file(tmp_path))}
    opened = trained(tmp_path, "two-tower", feature_files=files, parameters={"epochs": 1, "factors": 8})
    with pytest.warns(UserWarning, match="what neighbours of the purchases add, which the towers do not know"):
        item, user, _ = export_towers(opened, tmp_path / "towers")
    features, owned = not_none(opened.features).values, opened.dataset.train
    items = run(item, features=np.array(features[:5]))
    expected = opened.model.embed_pictures(torch.empty(0), torch.from_numpy(np.array(features[:5])))  # type: ignore[operator]
    close(items, expected[:, :9])
    who = [3, 40, 11]
    padded = np.full((3, owned.history_lengths.max()), -1)
    for row, each in enumerate(who):
        padded[row, : owned.history_lengths[each]] = owned.of(each)
    close(run(user, basket=padded), opened.scorer.towers.users[who])  # type: ignore[attr-defined]
    assert np.isfinite(run(user, basket=np.full((1, 4), -1))).all()


def test_a_model_without_a_tower_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = trained(tmp_path, "bpr-mf", parameters={"epochs": 0})
    with pytest.raises(InputError, match=r"^BPR-MF has no network that makes an item's vector of its picture"):
        export_towers(opened, tmp_path / "towers")
    status, _, err = call(monkeypatch, capsys, "export", str(tmp_path / "bpr-mf"), "--out", str(tmp_path / "towers"))
    assert status == 2 and "'imgrec embed' writes the vectors that a model has" in err
    assert not (tmp_path / "towers").exists()
