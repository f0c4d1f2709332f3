"""Items of which there is a picture alone: beside the catalogue, in lists, scores and similar items."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from commands import call
from narrow import not_none
from PIL import Image

from imgrec_lib import InputError, Request, open_trained, similar_to_picture, train_run, with_pictures
from imgrec_lib.explorer.new_item import keep_picture, new_item
from imgrec_lib.serving import Trained, score_picture

KNOWN = 7


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs, and the picture of an item of the catalogue as two files."""
    folder = tmp_path_factory.mktemp("runs")
    options = {"n_users": 60, "n_items": 50, "image_size": 32}
    for model, parameters in {"visrank": {}, "imgrec-ft": {"epochs": 1, "factors": 4}, "bpr-mf": {"epochs": 0}}.items():
        request = Request(
            model, parameters=parameters, dataset="wardrobe", dataset_options=options, feature_options={"size": 32}
        )
        dataset, features = request.load(with_features=True, progress=False)
        train_run(dataset, request, folder / model, features=features, progress=False)
    assert dataset.images is not None
    (folder / "new").mkdir()
    for name in ("dress", "again"):
        Image.fromarray(np.asarray(dataset.images.pixels[KNOWN])).save(folder / "new" / f"{name}.png")
    return folder


def opened(folder: Path, model: str) -> Trained:
    return open_trained(folder / model, pictures=True, progress=False)


@pytest.mark.slow
def test_a_known_item_as_a_new_one_has_its_scores_where_the_picture_is_all(folder: Path) -> None:
    trained = opened(folder, "visrank")
    more = with_pictures(trained, {"dress": folder / "new" / "dress.png"})
    scores = more.scorer.block(torch.arange(60))
    torch.testing.assert_close(scores[:, 50], scores[:, KNOWN], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(scores[:, :50], trained.scorer.block(torch.arange(60)))
    # Those who have not bought the known one find both side by side.
    user = next(u for u in range(60) if KNOWN not in trained.owned.of(u))
    lists = more.recommend([more.users[user]], k=60)
    ranks = lists.set_index("item")["rank"]
    assert abs(ranks["dress"] - ranks[trained.item_ids[KNOWN]]) == 1
    pairs = pd.DataFrame({"user": [more.users[user]] * 2, "item": ["dress", trained.item_ids[KNOWN]]})
    first, second = more.score(pairs)["score"]
    assert first == pytest.approx(second, rel=1e-4)
    assert more.similar(["dress"], 1, by="picture")["similar"].tolist() == [trained.item_ids[KNOWN]]


def test_a_new_item_scores_as_the_explorer_says(folder: Path) -> None:
    trained = opened(folder, "imgrec-ft")
    more = with_pictures(trained, {"dress": folder / "new" / "dress.png"})
    expected = not_none(new_item(trained, keep_picture(folder / "new" / "dress.png")).scores)
    lists = more.recommend(k=1, items=["dress"])
    assert lists["user"].tolist() == trained.users.tolist() and set(lists["item"]) == {"dress"}
    np.testing.assert_allclose(lists["score"], expected, rtol=1e-4, atol=1e-6)


def test_sets_that_no_picture_tells(folder: Path, tmp_path: Path) -> None:
    """Similar items are found by the set of pictures; a model that knows words too cannot score a picture."""
    request = Request(
        "imgrec-ft", parameters={"epochs": 1, "factors": 4}, dataset="wardrobe",
        dataset_options={"n_users": 60, "n_items": 50, "image_size": 32},
        feature_files={"words": "text", "look": "pictures"}, feature_options={"size": 32, "unit_length": True},
    )  # fmt: skip
    dataset, features = request.load(with_features=True, progress=False)
    train_run(dataset, request, tmp_path / "both", features=features, progress=False)
    trained, dress = open_trained(tmp_path / "both", progress=False), folder / "new" / "dress.png"
    for by in ("picture", "look"):
        found = similar_to_picture(trained, dress, 3, by=by)
        assert found["similar"].tolist()[0] == trained.item_ids[KNOWN]
    with pytest.raises(InputError, match="did you mean 'look'"):
        similar_to_picture(trained, dress, 3, by="looks")
    for ask in (
        lambda: score_picture(trained, dress, ["user-0003"]),
        lambda: with_pictures(trained, {"dress": dress}),
        lambda: similar_to_picture(trained, dress, by="learned"),
    ):
        with pytest.raises(InputError, match="knows an item also by words, which a picture does not tell"):
            ask()


def test_the_commands(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run, new = str(folder / "visrank"), folder / "new"
    arguments = ("--pictures", str(new), "--items", "dress,again", "--users", "user-0003", "--out")
    status, _, err = call(monkeypatch, capsys, "recommend", run, *arguments, str(folder / "lists.csv"))
    assert status == 0, err
    assert sorted(pd.read_csv(folder / "lists.csv")["item"]) == ["again", "dress"]
    out = folder / "similar.csv"
    status, _, err = call(
        monkeypatch, capsys, "similar", run, "--picture", str(new / "dress.png"), "-k", "4", "--out", str(out)
    )
    assert status == 0, err
    expected = similar_to_picture(opened(folder, "visrank"), new / "dress.png", 4)
    pd.testing.assert_frame_equal(pd.read_csv(out), expected, check_dtype=False)
    status, _, err = call(monkeypatch, capsys, "similar", run, "--picture", "x.png", "--items", "item-0001")
    assert status == 2 and "give --picture or --items" in err
    status, _, err = call(monkeypatch, capsys, "recommend", str(folder / "bpr-mf"), "--pictures", str(new))
    assert status == 2 and "BPR-MF cannot score an item by its picture alone" in err


def test_sentences(folder: Path) -> None:
    picture = folder / "new" / "dress.png"
    trained = opened(folder, "visrank")
    for pictures, sentence in (
        ({"item-0003": picture}, "the catalogue has an item 'item-0003' already"),
        ({}, "there is no picture of a new item"),
        ({"dress": picture, "text": Path(__file__)}, "of the new item 'text' cannot be used: the picture is broken"),
    ):
        with pytest.raises(InputError, match=sentence):
            with_pictures(trained, pictures)
