"""The HTTP interface: its answers are the library's, who has no token and what is too large is refused."""

from __future__ import annotations

import asyncio
import io
import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

pytest.importorskip("fastapi", reason="the extra serve is not installed")
pytest.importorskip("fastapi_offline", reason="the extra serve is not installed")

from fastapi.testclient import TestClient

from imgrec_lib import InputError, Request, train_run
from imgrec_lib.serving import Trained, api, open_trained
from imgrec_lib.serving.pictures import score_picture, similar_to_picture
from imgrec_lib.serving.pool import Busy, Pool
from imgrec_lib.serving.worker import _answered

TOKEN = "a-token"
AUTHORISED = {"Authorization": f"Bearer {TOKEN}"}
WARDROBE = {"n_users": 60, "n_items": 50, "image_size": 32}


class Here(Pool):
    """A pool whose only worker is this process."""

    def __init__(self, trained: Trained) -> None:
        super().__init__(Path())
        self.trained = trained
        self.busy = False

    @property
    def ready(self) -> int:
        return int(not self.busy)

    async def ask(self, question: Any, picture: Callable[[], bytes] | None = None) -> tuple[int, bytes]:
        if self.busy:
            raise Busy
        status, content = await asyncio.to_thread(
            _answered, self.trained, json.loads(json.dumps(question)), picture() if picture else b""
        )
        return status, json.dumps(content, allow_nan=False).encode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of VBPR, which embeds pictures, and of ItemKNN, which scores baskets."""
    folder = tmp_path_factory.mktemp("runs")
    for model in ("vbpr", "item-knn"):
        parameters = (
            {
                "epochs": 3,
                "factors": 4,
                "visual_factors": 4,
                "l2": 0.0,
                "l2_negative": 0.0,
                "l2_visual": 0.0,
                "l2_bias": 0.0,
            }
            if model == "vbpr"
            else {}
        )
        request = Request(
            model, parameters=parameters, dataset="wardrobe", dataset_options=WARDROBE, feature_options={"size": 32}
        )
        dataset, features = request.load(progress=False)
        train_run(dataset, request, folder / model, features=features, progress=False)
    return folder


@pytest.fixture(scope="module")
def visual(folder: Path) -> Trained:
    return open_trained(folder / "vbpr", progress=False)


@pytest.fixture(scope="module")
def neighbours(folder: Path) -> Trained:
    return open_trained(folder / "item-knn", progress=False)


@pytest.fixture(scope="module")
def client(visual: Trained) -> TestClient:
    return TestClient(api.create_app(Here(visual), TOKEN), headers=AUTHORISED)


@pytest.fixture(scope="module")
def of_baskets(neighbours: Trained) -> TestClient:
    return TestClient(api.create_app(Here(neighbours), TOKEN), headers=AUTHORISED)


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def picture(visual: Trained) -> bytes:
    """The picture of item 7."""
    assert visual.dataset.images is not None
    return png(np.asarray(visual.dataset.images.pixels[7]))


def same(answer: list[dict[str, Any]], expected: pd.DataFrame) -> None:
    """The same numbers, to the bit."""
    assert answer == [{str(key): value for key, value in row.items()} for row in expected.to_dict("records")]
    assert len(answer)


def test_recommendations_are_those_of_the_library(client: TestClient, visual: Trained) -> None:
    category = visual.dataset.items["category"].iloc[0]
    cases: list[dict[str, Any]] = [
        {"k": 10},
        {"k": 3, "include_owned": True},
        {"k": 5, "where": {"category": category}},
        {"k": 5, "where": {"category": [category]}, "without": ["item-0003", "item-0007"]},
        {"k": 2, "items": ["item-0001", "item-0002", "item-0003", "item-0004"]},
        {"k": 1000},
    ]
    for conditions in cases:
        answer = client.post("/recommend", json={"user": "user-0007", **conditions})
        assert answer.status_code == 200, answer.text
        api.Recommendations.model_validate_json(answer.content)
        lists = visual.recommend(["user-0007"], **conditions)
        same(answer.json()["items"], lists.drop(columns="user"))
        assert answer.json()["notes"] == []


def test_baskets_and_popularity(of_baskets: TestClient, neighbours: Trained) -> None:
    known = [str(neighbours.item_ids[i]) for i in neighbours.dataset.train.of(5)]
    expected = neighbours.recommend(baskets=pd.DataFrame({"user": "x", "item": known}), k=4)
    same(of_baskets.post("/recommend", json={"basket": known, "k": 4}).json()["items"], expected.drop(columns="user"))
    popular = [str(neighbours.item_ids[i]) for i in np.argsort(-neighbours.popularity, kind="stable")[:3]]
    for basket, sentences in (
        ([], ["of 1 customers no purchase is known"]),
        (["unheard of"], ["1 of 1 purchases in the baskets", "of 1 customers no purchase is known"]),
    ):
        answer = of_baskets.post("/recommend", json={"basket": basket, "k": 3}).json()
        assert [row["item"] for row in answer["items"]] == popular
        assert {row["by"] for row in answer["items"]} == {"popularity"}
        assert [note[: len(s)] for note, s in zip(answer["notes"], sentences, strict=True)] == sentences


def test_similar_items_and_pictures(client: TestClient, visual: Trained, picture: bytes) -> None:
    for by in ("learned", "picture"):
        answer = client.get("/similar", params={"item": "item-0007", "k": 4, "by": by})
        expected = visual.similar(["item-0007"], 4, by=by)
        same(answer.json()["items"], expected.drop(columns="item").rename(columns={"similar": "item"}))
        answer = client.post("/similar/picture", params={"k": 4, "by": by}, files={"picture": picture})
        assert answer.status_code == 200, answer.text
        api.SimilarItems.model_validate_json(answer.content)
        expected = similar_to_picture(visual, picture, 4, by=by)
        same(answer.json()["items"], expected.rename(columns={"similar": "item"}))
    answer = client.post("/score/picture", params={"user": "user-0009"}, files={"picture": picture})
    api.PictureScore.model_validate_json(answer.content)
    (row,) = score_picture(visual, picture, ["user-0009"]).to_dict("records")
    assert answer.json() == row | {"notes": []}


def test_an_item_s_own_picture_is_nearest_to_the_item(visual: Trained, picture: bytes, tmp_path: Path) -> None:
    """By the visual features it has cosine 1 with itself; from a file as from bytes."""
    found = similar_to_picture(visual, picture, 3)
    assert found["similar"].iloc[0] == visual.item_ids[7] and found["similarity"].iloc[0] == pytest.approx(1, abs=1e-5)
    features = np.asarray(visual.item_vectors("picture"), np.float64)
    units = features / np.linalg.norm(features, axis=1, keepdims=True)
    assert found["similarity"].to_numpy() == pytest.approx(np.sort(units @ units[7])[::-1][:3], abs=1e-5)
    (tmp_path / "photo.png").write_bytes(picture)
    pd.testing.assert_frame_equal(similar_to_picture(visual, tmp_path / "photo.png", 3), found)


def test_the_score_of_a_picture_by_hand(visual: Trained, picture: bytes) -> None:
    """VBPR's score of item 7 with the mean of all items' ids and offsets in place of its own (He and McAuley 2016,
    equation 4)."""
    model: Any = visual.model
    scorer: Any = visual.scorer
    row = scorer.items[7].double().clone()
    row[:4] = model.items.detach().double().mean(0)
    row[-1] += model.item_bias.detach().double().mean() - model.item_bias.detach().double()[7]
    user = 9
    scores = (scorer.items.double() @ scorer.users[user].double()).detach().numpy()
    own = float(row @ scorer.users[user].double())
    kept = np.setdiff1d(np.arange(visual.dataset.n_items), visual.owned.of(user))
    (found,) = score_picture(visual, picture, [visual.dataset.user_ids[user]]).itertuples()
    assert found.score == pytest.approx(own, rel=1e-4)
    assert found.place == 1 + (scores[kept] > own).sum()


QUESTIONS: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", "/recommend", {"json": {"user": "user-0007"}}),
    ("GET", "/similar?item=item-0001", {}),
    ("GET", "/model", {}),
    ("POST", "/similar/picture", {"files": {"picture": b"x"}}),
    ("POST", "/score/picture?user=user-0007", {"files": {"picture": b"x"}}),
]


def test_nothing_of_the_data_is_said_without_the_token(visual: Trained) -> None:
    stranger = TestClient(api.create_app(Here(visual), TOKEN))
    for method, path, content in QUESTIONS:
        for headers in ({}, {"Authorization": "Bearer another"}, {"Authorization": TOKEN}):
            answer = stranger.request(method, path, headers=headers, **content)
            assert answer.status_code == 401 and "Bearer TOKEN" in answer.json()["detail"], path
            assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert stranger.get("/health").json() == {"status": "ok", "workers": 1}
    paths = {path for path, _ in api.create_app(Here(visual), TOKEN).openapi()["paths"].items()}
    assert paths - {"/health"} == {path.partition("?")[0] for _, path, _ in QUESTIONS}


def test_bodies_are_bounded_before_they_are_read(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def unannounced() -> Iterator[bytes]:
        yield from [b" " * 65_536] * 16

    sentence = "the body has more than 1,000,000 bytes: send less."
    for answer in (
        client.post("/recommend", content=b" " * 1_000_001),
        client.post("/recommend", content=unannounced(), headers={"Content-Type": "application/json"}),
    ):
        assert (answer.status_code, answer.json()) == (413, {"detail": sentence})
    answer = client.post("/similar/picture", content=b"", headers={"Content-Length": "65000001"})
    assert (answer.status_code, answer.json()["detail"]) == (413, "the body has more than 65,000,000 bytes: send less.")
    monkeypatch.setattr(api, "MAX_BYTES", 50_000)
    answer = client.post("/similar/picture", files={"picture": bytes(1_060_000)})
    assert answer.status_code == 413


SENTENCES: list[tuple[str, dict[str, Any], str]] = [
    ("/recommend", {}, "body: give either a user or a basket."),
    ("/recommend", {"user": "user-0001", "basket": []}, "body: give either a user or a basket."),
    ("/recommend", {"user": "user-0001", "k": 0}, "body.k: Input should be greater than or equal to 1."),
    ("/recommend", {"user": "user-0001", "k": 1001}, "body.k: Input should be less than or equal to 1000."),
    ("/recommend", {"user": "user-0001", "kk": 1}, "body.kk: Extra inputs are not permitted."),
    ("/recommend", {"user": "user-0001", "without": ["a"] * 10_001}, "body.without: List should have at most 10000"),
    ("/recommend", {"user": "nobody"}, "there is no user 'nobody' in this dataset"),
    ("/recommend", {"user": "user-0001", "where": {"categry": "x"}}, "unknown column of the item table 'categry': did"),
    ("/recommend", {"basket": ["item-0001"]}, "VBPR cannot score for customers that it was not trained on"),
]


@pytest.mark.parametrize(("path", "body", "sentence"), SENTENCES)
def test_what_cannot_be_answered_gets_a_sentence(
    client: TestClient, path: str, body: dict[str, Any], sentence: str
) -> None:
    answer = client.post(path, json=body)
    assert answer.status_code == 422 and answer.json()["detail"].startswith(sentence), answer.text


def test_unknown_vectors(client: TestClient) -> None:
    answer = client.get("/similar", params={"item": "item-0007", "by": "pictures"})
    assert answer.status_code == 422 and "did you mean 'picture'" in answer.json()["detail"]


def test_pictures_that_are_none(client: TestClient, of_baskets: TestClient, picture: bytes) -> None:
    answer = client.post("/similar/picture", files={"picture": b"no picture"})
    assert answer.status_code == 422 and "choose a JPEG, PNG" in answer.json()["detail"]
    answer = of_baskets.post("/score/picture?user=user-0001", files={"picture": picture})
    assert answer.json()["detail"].startswith("ItemKNN cannot score a picture that is no item's")
    answer = of_baskets.post("/similar/picture", files={"picture": picture})
    assert answer.json()["detail"].startswith("ItemKNN was given no visual features")


def test_busy_and_unhealthy(visual: Trained) -> None:
    pool = Here(visual)
    pool.busy = True
    client = TestClient(api.create_app(pool, TOKEN), headers=AUTHORISED)
    answer = client.get("/model")
    assert answer.status_code == 503 and answer.headers["Retry-After"] == "1"
    assert (client.get("/health").status_code, client.get("/health").json()["workers"]) == (503, 0)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)
NAMES = ["user", "basket", "k", "include_owned", "items", "without", "where", "one_per_group"]
LIKELY = st.sampled_from(["user-0001", "item-0001", ["item-0001", 3], {"category": "x"}, 1, True, 10**30, -1, "\x00"])


@settings(deadline=None, max_examples=60)
@given(st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=3), LIKELY | JSON, max_size=4) | JSON)
def test_no_question_is_answered_with_an_error_of_the_server(of_baskets: TestClient, body: Any) -> None:
    answer = of_baskets.post("/recommend", content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert answer.status_code in (200, 422), (body, answer.text)
    if answer.status_code == 200:
        api.Recommendations.model_validate_json(answer.content)
    else:
        assert isinstance(answer.json()["detail"], str)


def test_the_page_asks_for_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/docs").text
    sources = re.findall(r"""(?:src|href|url)\s*[=:]\s*["']([^"']+)""", page)
    assert len(sources) >= 4 and all(source.startswith("/") for source in sources), sources
    stranger = TestClient(client.app)
    for source in sources:
        assert stranger.get(source).status_code == 200, source
    assert "http" not in re.sub(r"<!--.*?-->", "", page, flags=re.DOTALL)


@pytest.mark.slow
def test_a_server_answers_as_the_library_does_and_leaves_no_process(folder: Path, visual: Trained) -> None:
    """The command itself, with its worker; it listens to this machine and asks for the token that it prints."""
    command = [sys.executable, "-c", "from imgrec_lib.cli import main; main()", "serve", str(folder / "vbpr")]
    with subprocess.Popen(
        [*command, "--port", "0", "--workers", "1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None and server.stderr is not None
        found = re.fullmatch(
            r"open (http://127\.0\.0\.1:\d+)/docs, with the token (\S{32})\n", server.stdout.readline()
        )
        assert found is not None, server.stderr.read()
        processes = [psutil.Process(server.pid), *psutil.Process(server.pid).children()]
        assert len(processes) == 2
        listening = [c.laddr.ip for c in processes[0].net_connections("tcp") if c.status == psutil.CONN_LISTEN]
        assert listening == ["127.0.0.1"]
        question = urllib.request.Request(
            f"{found[1]}/recommend",
            json.dumps({"user": "user-0003", "k": 5}).encode(),
            {"Authorization": f"Bearer {found[2]}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(question) as answer:
            rows = json.load(answer)["items"]
        same(rows, visual.recommend(["user-0003"], 5).drop(columns="user"))
        server.send_signal(signal.SIGTERM)
        assert server.wait(20) in (0, -signal.SIGTERM)
        _, alive = psutil.wait_procs(processes, timeout=10)
        assert not alive and "Traceback" not in server.stderr.read()


def test_no_part_of_an_answer_waits_for_the_one_before_it() -> None:
    with api._listen("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        connection, _ = listening.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_server_that_cannot_start_says_why(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(InputError, match="holds no finished run"):
        api.serve(tmp_path, port=0)
    sentence = r"127\.0\.0\.1:\d+ cannot be listened at .*: choose another port or host"
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(InputError, match=sentence):
        api.serve(folder / "vbpr", port=taken.getsockname()[1])
