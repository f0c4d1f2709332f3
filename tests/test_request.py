"""What is asked for: checked before any data is read, the same after a way through JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import pytest
from annotated_types import Ge, Lt
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from imgrec_lib import InputError, evaluate, load_inputs, load_model, train_run
from imgrec_lib.options import Count, NotNegative, Option, check_options, options_of
from imgrec_lib.request import Request

SMALL = {"n_users": 40, "n_items": 50, "image_size": 32}


def test_a_request_survives_json() -> None:
    request = Request(
        "vbpr", "default", {"factors": 8, "l2": 0.5}, 3, "cpu", "wardrobe", None, SMALL, control="shuffled pictures"
    )
    assert Request.from_json(json.loads(json.dumps(request.to_json()))) == request
    assert Request.from_parameters(request.to_parameters() | {"out": "elsewhere", "neighbours": 3}) == request
    assert request.to_parameters()["root"] == "" and request.to_json()["root"] is None


def test_paths_are_recorded_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is no path, such as the option `name`, stays what it is even where a file is called so."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "shop").mkdir()
    options = {"name": "shop", "items": "shop/articles.csv", "cache": "~/kept"}
    request = Request("poprank", dataset="table", root="shop", dataset_options=options, feature_options={"cache": "c"})
    values = request.to_json()
    assert values["root"] == str(tmp_path / "shop")
    assert values["dataset_options"] == {
        "name": "shop",
        "items": str(tmp_path / "shop" / "articles.csv"),
        "cache": str(tmp_path / "home" / "kept"),
    }
    assert values["feature_options"] == {"cache": str(tmp_path / "c")}


def test_what_lay_in_a_folder_moves_with_it() -> None:
    options = {"name": "/old/shop", "items": "/old/shop/articles.csv", "cache": "/kept"}
    request = Request("poprank", dataset="table", root="/old/shop", dataset_options=options)
    moved = {"name": "/old/shop", "items": "/new/articles.csv", "cache": "/kept"}
    for root in (
        "/new",
        {"shop": "/new"},
        {"table": "/new", "hm": "/other"},
        {"shop": "/new", "": "/other"},
        {"": "/new"},
    ):
        found = request.at(root)
        assert (found.root, found.dataset_options) == ("/new", moved), root
    assert request.at(None) == request.at({}) == request.at({"hm": "/new"}) == request


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"modle": "vbpr"}, "unknown parameter of a request 'modle': did you mean 'model'"),
        ({"seed": "1"}, "parameter 'seed' of a request must be int, at least 0, not '1'"),
        ({"dataset_options": []}, r"parameter 'dataset_options' of a request must be dict, not \[\]"),
        ({"model": "vbrp"}, "unknown model 'vbrp': did you mean 'vbpr'"),
        ({"profile": "papr"}, "unknown profile of vbpr 'papr'"),
        ({"parameters": {"factor": 3}}, "unknown parameter of vbpr 'factor': did you mean 'factors'"),
        ({"parameters": {"learning_rate": float("nan")}}, "parameter 'learning_rate' of vbpr must be float, above 0"),
        ({"parameters": {"factors": 0}}, "parameter 'factors' of vbpr must be int, at least 1, not 0"),
        ({"parameters": {"batch_size": 0}}, "parameter 'batch_size' of vbpr must be int, at least 1, not 0"),
        ({"parameters": {"evaluate_every": 0}}, "parameter 'evaluate_every' of vbpr must be int, at least 1, not 0"),
        ({"parameters": {"l2_visual": -0.1}}, r"parameter 'l2_visual' of vbpr must be float, at least 0, not -0\.1"),
        ({"dataset": "wardrob"}, "unknown dataset 'wardrob': did you mean 'wardrobe'"),
        ({"dataset_options": {"n_user": 3}}, "unknown option of dataset wardrobe 'n_user': did you mean 'n_users'"),
        ({"root": "here"}, "dataset 'wardrobe' needs no root"),
        ({"backbone": "resnet5"}, "unknown backbone 'resnet5': did you mean 'resnet50'"),
        ({"feature_options": {"sise": 3}}, "unknown option of features 'sise': did you mean 'size'"),
        ({"control": "shuffled"}, "unknown control 'shuffled'"),
        ({"device": "gpu"}, "unknown device 'gpu'"),
        ({"device": "cuda:99"}, "device 'cuda:99' is not there"),
        ({"device": "tpu"}, "unknown device 'tpu'"),
        ({"device": "meta"}, "device 'meta' is not there"),
        ({"seed": -1}, "parameter 'seed' of a request must be int, at least 0, not -1"),
    ],
)
def test_what_is_wrong_is_said_before_any_data_is_read(
    changed: dict[str, Any], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("data was read")

    monkeypatch.setattr("imgrec_lib.request.load_dataset", never)
    values = {"model": "vbpr", "dataset": "wardrobe", "dataset_options": SMALL} | changed
    with pytest.raises(InputError, match=sentence):
        Request.from_json(values).load()
    with pytest.raises(InputError, match="must name a model"):
        Request.from_json({"seed": 1})


def test_a_run_keeps_its_request_and_loads_the_same_data_again(tmp_path: Path) -> None:
    request = Request("poprank", dataset="wardrobe", dataset_options=SMALL)
    dataset, features = request.load(progress=False)
    assert features is None  # PopRank looks at no picture
    run = train_run(dataset, request, tmp_path / "run", progress=False)
    assert run.request == request
    assert run.request.load(progress=False)[0].fingerprint == dataset.fingerprint
    nameless = train_run(dataset, "poprank", tmp_path / "nameless", seed=2, progress=False)
    assert nameless.request == Request("poprank", seed=2)
    with pytest.raises(InputError, match="does not say how its dataset is loaded"):
        nameless.request.load()


def test_options_are_read_from_signatures() -> None:
    def reader(root: str, *, size: Count = 3, where: str | Path | None = None, share: NotNegative = 0.5) -> None: ...

    options = options_of(reader)
    assert list(options) == ["size", "where", "share"] and options["size"].default == 3
    assert check_options("x", options, {"size": 1, "where": None, "share": 2}) == {
        "size": 1, "where": None, "share": 2.0,
    }  # fmt: skip
    refused: list[tuple[dict[str, Any], str]] = [
        ({"size": 0}, "parameter 'size' of x must be int, at least 1, not 0"),
        ({"size": True}, "must be int, at least 1, not True"),
        ({"where": 3}, "must be str or Path or None, not 3"),
        ({"share": float("inf")}, "must be float, at least 0, not inf"),
    ]
    for values, sentence in refused:
        with pytest.raises(InputError, match=sentence):
            check_options("x", options, values)


@given(st.floats() | st.integers(-3, 3))
def test_bounds_hold(value: float) -> None:
    options = {"share": Option(Annotated[float, Ge(0), Lt(1)])}
    if 0 <= value < 1:
        assert check_options("x", options, {"share": value}) == {"share": value}
    else:
        with pytest.raises(InputError, match="must be float, at least 0 and below 1"):
            check_options("x", options, {"share": value})


def test_a_model_without_pictures_prepares_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMGREC_CACHE", str(tmp_path / "cache"))
    shop = tmp_path / "shop"
    (shop / "images").mkdir(parents=True)
    rows = [f"u{u},i{(u + k) % 6},{1_600_000_000 + k}" for u in range(6) for k in range(5)]
    (shop / "interactions.csv").write_text("\n".join(["user,item,timestamp", *rows]))
    for i in range(6):
        Image.new("RGB", (9, 9), (20 * i, 20 * i, 60)).save(shop / "images" / f"i{i}.png")
    asked: dict[str, Any] = {"dataset": "table", "root": str(shop), "dataset_options": {"image_size": 8}}
    runs = {}
    for model, parameters, prepared in (("bpr-mf", {"epochs": 1}, False), ("visrank", {}, True)):
        request = Request.from_json({"model": model, "parameters": parameters, **asked})
        dataset, features = request.load(progress=False)
        runs[model] = train_run(dataset, request, tmp_path / model, features=features, progress=False)
        assert (tmp_path / "cache" / "images").is_dir() == prepared
        assert ("pictures" in runs[model].record.dataset.parts) == prepared
    records = [run.record.dataset for run in runs.values()]
    assert records[0].fingerprint == records[1].fingerprint
    # A version that counted the pictures of every run: it opens, and is ranked against the negatives of then.
    counted = replace(dataset, pictures_count=True)
    earlier = train_run(
        counted, Request("bpr-mf", parameters={"epochs": 1}, **asked), tmp_path / "then", progress=False
    )
    again = load_inputs(earlier, progress=False)[0]
    assert again.fingerprint == earlier.record.dataset.fingerprint != records[0].fingerprint
    assert evaluate(load_model(earlier, again), again).metrics == earlier.metrics
    shop.rename(tmp_path / "moved")
    with pytest.raises(
        InputError, match=r"the data of run bpr-mf are not at .*shop: say where they lie now with --root"
    ):
        load_inputs(runs["bpr-mf"], progress=False)
    assert load_inputs(runs["bpr-mf"], False, tmp_path / "moved")[0].fingerprint == records[0].fingerprint
    (tmp_path / "moved").rename(shop)
    # Another picture changes what was made of pictures, and nothing else.
    Image.new("RGB", (9, 9)).save(shop / "images" / "i3.png")
    load_model(runs["bpr-mf"], load_inputs(runs["bpr-mf"], progress=False)[0])
    with pytest.raises(InputError, match=r"trained on 'table' with other data than 'table' has now: the pictures\."):
        load_model(runs["visrank"], *load_inputs(runs["visrank"], progress=False))
