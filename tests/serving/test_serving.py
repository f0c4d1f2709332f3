"""Lists, scores and vectors by the catalogue's own ids, against sorting the whole catalogue by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from commands import call
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file
from torch import Tensor

from imgrec_lib import InputError, train_run
from imgrec_lib.data.dataset import Columns, Dataset, HeldOut, Interactions
from imgrec_lib.evaluation.top import top_items
from imgrec_lib.models.base import InnerProduct, Recommender
from imgrec_lib.request import Request
from imgrec_lib.serving import Trained, open_trained, train
from imgrec_lib.serving.vectors import write_vectors

N_USERS, N_ITEMS = 30, 40


class Fixed(Recommender):
    """Random factors; also scores baskets, by the sum of the item vectors in them."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.users = torch.randn(N_USERS, 6, generator=generator)
        self.items = torch.randn(N_ITEMS, 6, generator=generator)

    def scorer(self, times: Tensor | None = None) -> InnerProduct:
        return InnerProduct(self.users, self.items)

    def score_baskets(self, baskets: Interactions) -> Tensor:
        rows = [self.items[torch.from_numpy(baskets.of(user))].sum(0) for user in range(baskets.n_users)]
        return torch.stack(rows) @ self.items.T


def shop() -> Dataset:
    """Numeric ids that are not the positions: user 7 is at position 23, item 7 at position 33."""
    rng = np.random.default_rng(0)
    bought = np.array([rng.choice(N_ITEMS, 6, replace=False) for _ in range(N_USERS)])
    items = pd.DataFrame(
        {
            Columns.ITEM: [str(N_ITEMS - i) for i in range(N_ITEMS)],
            Columns.NAME: [f"article {N_ITEMS - i}" for i in range(N_ITEMS)],
            Columns.CATEGORY: ["shoes" if i % 4 == 0 else "tops" for i in range(N_ITEMS)],
            Columns.GROUP: [f"g{i // 3}" for i in range(N_ITEMS)],
        }
    )
    pairs = np.repeat(np.arange(N_USERS), 4), bought[:, :4].ravel()
    train_part = Interactions.from_pairs(*pairs, N_USERS, N_ITEMS)
    ids = np.array([str(N_USERS - u) for u in range(N_USERS)])
    return Dataset("shop", ids, items, train_part, HeldOut(bought[:, 4]), HeldOut(bought[:, 5]))


@pytest.fixture(scope="module")
def trained() -> Trained:
    return Trained(Fixed(), shop(), None, None, "Fixed")


def fixed(trained: Trained) -> Fixed:
    assert isinstance(trained.model, Fixed)
    return trained.model


def by_hand(
    trained: Trained, scores: np.ndarray, owned: set[int], k: int, admissible: list[int] | None = None
) -> list[str]:
    order = np.argsort(-scores, kind="stable")
    kept = [i for i in order if i not in owned and (admissible is None or i in admissible)]
    return [str(N_ITEMS - i) for i in kept[:k]]


def owned_by(dataset: Dataset, user: int) -> set[int]:
    return {*dataset.train.of(user).tolist(), int(dataset.validation.items[user]), int(dataset.test.items[user])}


def scores_of(trained: Trained) -> np.ndarray:
    model = fixed(trained)
    return (model.users @ model.items.T).numpy()


def test_lists_are_by_id_and_leave_out_held_out_purchases(trained: Trained) -> None:
    """Users of any form of id: text, whole numbers, and what pandas makes of a column with a gap."""
    scores, dataset = scores_of(trained), trained.dataset
    for ids in (["7", "30"], [7, 30], np.array([7, 30]), pd.Series([7.0, 30.0])):
        lists = trained.recommend(ids, 5)
        assert list(lists.columns) == ["user", "item", "rank", "score", "name", "by"]
        for user in (7, 30):
            own = lists[lists["user"] == str(user)]
            row = N_USERS - user
            assert own["item"].tolist() == by_hand(trained, scores[row], owned_by(dataset, row), 5)
            assert own["rank"].tolist() == [1, 2, 3, 4, 5] and (own["by"] == "Fixed").all()
            assert own["name"].tolist() == [f"article {item}" for item in own["item"]]
            expected = [scores[row, N_ITEMS - int(item)] for item in own["item"]]
            assert own["score"].to_numpy() == pytest.approx(expected, rel=1e-5)
    assert trained.recommend(k=2)["user"].drop_duplicates().tolist() == dataset.user_ids.tolist()
    with_owned = trained.recommend(["7"], N_ITEMS + 5, include_owned=True)
    assert with_owned["item"].tolist() == by_hand(trained, scores[N_USERS - 7], set(), N_ITEMS)
    assert len(trained.recommend(["7"], N_ITEMS)) == N_ITEMS - 6  # a list ends where nothing is left


def test_conditions_on_items(trained: Trained) -> None:
    scores, row = scores_of(trained)[N_USERS - 7], N_USERS - 7
    owned = owned_by(trained.dataset, row)
    shoes = [i for i in range(N_ITEMS) if i % 4 == 0]
    cases: list[tuple[dict[str, Any], list[int]]] = [
        ({"where": {"category": "shoes"}}, shoes),
        ({"where": {"category": ["shoes", "tops"], "group": "g1"}}, [3, 4, 5]),
        ({"where": {"group": "g1"}, "where_not": {"category": "shoes"}}, [3, 5]),
        ({"items": ["40", 39, 38]}, [0, 1, 2]),
        ({"items": ["40", "39"], "without": ["40"]}, [1]),
        ({"without": [N_ITEMS - i for i in shoes]}, [i for i in range(N_ITEMS) if i % 4]),
    ]
    for conditions, admissible in cases:
        found = trained.recommend(["7"], 5, **conditions)["item"].tolist()
        assert found == by_hand(trained, scores, owned, 5, admissible), conditions


def test_one_variant_of_each_product(trained: Trained) -> None:
    scores, row = scores_of(trained), N_USERS - 7
    best: dict[int, int] = {}
    for item in np.argsort(-scores[row], kind="stable"):
        if item not in owned_by(trained.dataset, row):
            best.setdefault(int(item) // 3, int(item))
    lists = trained.recommend(["7"], 6, one_per_group=True)
    assert lists["item"].tolist() == [str(N_ITEMS - item) for item in list(best.values())[:6]]
    assert lists["rank"].tolist() == [1, 2, 3, 4, 5, 6]
    every = trained.recommend(["7"], 100, one_per_group=True)
    assert every["item"].tolist() == [str(N_ITEMS - item) for item in best.values()]


def test_new_customers_by_their_baskets(trained: Trained) -> None:
    """One bought what user 7 did in training, one an unknown item beside a known one, of one nothing is known."""
    dataset, row = trained.dataset, N_USERS - 7
    known = [str(N_ITEMS - i) for i in dataset.train.of(row)]
    table = pd.DataFrame(
        [*(("twin", item) for item in known), ("half", "40"), ("half", "no such item"), ("nobody", "nothing")],
        columns=["user", "item"],
    )
    with pytest.warns(UserWarning) as warned:
        lists = trained.recommend(baskets=table, k=4)
    texts = " ".join(str(w.message) for w in warned)
    assert "2 of 7 purchases in the baskets are of items that the catalogue does not have" in texts
    assert "of 1 customers no purchase is known: they get the most popular items" in texts
    items = fixed(trained).items
    basket = dataset.train.of(row)
    scores = (items[torch.from_numpy(basket)].sum(0) @ items.T).numpy()
    assert lists[lists["user"] == "twin"]["item"].tolist() == by_hand(trained, scores, set(basket.tolist()), 4)
    scores = (items[0] @ items.T).numpy()
    assert lists[lists["user"] == "half"]["item"].tolist() == by_hand(trained, scores, {0}, 4)
    nobody = lists[lists["user"] == "nobody"]
    assert nobody["item"].tolist() == by_hand(trained, dataset.train.popularity.astype(float), set(), 4)
    assert set(nobody["by"]) == {"popularity"} and set(lists[lists["user"] != "nobody"]["by"]) == {"Fixed"}


def test_a_known_user_without_purchases_gets_what_sells_most(trained: Trained) -> None:
    """User 7 has a test item alone, as a new user of a split by time has; the others keep their places."""
    dataset, row = trained.dataset, N_USERS - 7
    kept = dataset.train.users != row
    train_part = Interactions.from_pairs(dataset.train.users[kept], dataset.train.items[kept], N_USERS, N_ITEMS)
    other = replace(trained, dataset=replace(dataset, train=train_part))
    with pytest.warns(UserWarning, match="of 1 customers no purchase is known: they get the most popular items"):
        lists = other.recommend(["8", "7", "9"], 3)
    assert lists["user"].tolist() == ["8"] * 3 + ["7"] * 3 + ["9"] * 3
    mine = lists[lists["user"] == "7"]
    held = {int(dataset.validation.items[row]), int(dataset.test.items[row])}
    assert mine["item"].tolist() == by_hand(trained, train_part.popularity.astype(float), held, 3)
    assert lists["by"].tolist() == ["Fixed"] * 3 + ["popularity"] * 3 + ["Fixed"] * 3


def test_lists_are_the_same_by_one_thread_and_by_two() -> None:
    """More users than a block holds: the blocks are shared out, and PyTorch's threads are as before."""
    generator = torch.Generator().manual_seed(1)
    scorer = InnerProduct(torch.randn(2500, 4, generator=generator), torch.randn(1100, 4, generator=generator))
    owned = Interactions.from_pairs(np.arange(2500), np.arange(2500) % 1100, 2500, 1100)
    number, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(top_items(scorer, np.arange(2500), owned, 7)[0])
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(number)
    assert (found[0] == found[1]).all()
    scores = (scorer.users @ scorer.items.T).numpy()
    scores[np.arange(2500), np.arange(2500) % 1100] = -np.inf
    np.testing.assert_allclose(
        np.take_along_axis(scores, found[0], 1), -np.sort(-scores, 1)[:, :7], rtol=1e-5, atol=1e-6
    )


def test_similar_items_and_scores_of_pairs(trained: Trained) -> None:
    items = fixed(trained).items
    cosine = torch.nn.functional.cosine_similarity(items[33].unsqueeze(0), items).numpy()
    found = trained.similar([7], 3)
    expected = [i for i in np.argsort(-cosine, kind="stable") if i != 33][:3]
    assert found["similar"].tolist() == [str(N_ITEMS - i) for i in expected] and set(found["item"]) == {"7"}
    assert found["similarity"].to_numpy() == pytest.approx(cosine[expected], abs=1e-5)
    pairs = pd.DataFrame({"user": [7, 7, 30], "item": ["7", "40", "1"], "note": ["a", "b", "c"]})
    scored = trained.score(pairs)
    scores = scores_of(trained)
    assert scored["score"].to_numpy() == pytest.approx([scores[23, 33], scores[23, 0], scores[0, 39]], rel=1e-5)
    assert scored["note"].tolist() == ["a", "b", "c"]
    arrow = pa.table({"customer_id": [7, 30], "Article-Id": ["40", "1"]})  # anything that becomes a DataFrame of pandas
    assert trained.score(arrow)["score"].to_numpy() == pytest.approx([scores[23, 0], scores[0, 39]], rel=1e-5)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 50), st.integers(0, 2**31), st.integers(1, 3))
def test_the_best_items_in_tiles_are_those_of_a_sort(k: int, seed: int, spread: int) -> None:
    """Few different scores, so that many tie: of equal ones the lower index comes first."""
    rng = np.random.default_rng(seed)
    users, items = torch.from_numpy(rng.integers(-spread, spread + 1, (2, 9, 2))).float()
    catalogue = torch.cat([items, items, items])
    owned = Interactions.from_pairs(np.arange(9), rng.integers(0, 27, 9), 9, 27)
    admissible = rng.random(27) < 0.8
    found, scores = top_items(InnerProduct(users, catalogue), np.arange(9), owned, k, admissible=admissible)
    for user, row in enumerate((users @ catalogue.T).numpy()):
        order = [i for i in np.argsort(-row, kind="stable") if i not in owned.of(user) and admissible[i]][:k]
        assert found[user].tolist() == order + [-1] * (k - len(order))
        assert scores[user, : len(order)].tolist() == row[order].tolist()


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 70), st.integers(1, 60), st.integers(0, 2**31), st.sampled_from([0.0, 1e-7, 1e-3, 1.0]))
def test_the_best_items_of_a_few_users_are_those_of_all_their_products(
    k: int, width: int, seed: int, apart: float
) -> None:
    """Rounded vectors rule items out: here many are equal, or differ by the last digit, and their lengths by much."""
    rng = np.random.default_rng(seed)
    kinds = rng.standard_normal((5, width)) * 10.0 ** rng.integers(-42, 25, (5, 1)) * (rng.random((5, 1)) < 0.9)
    table = kinds[rng.integers(0, 5, 200)] * (1 + apart * rng.standard_normal((200, width)))
    users = rng.standard_normal((3, width)) * 10.0 ** rng.integers(-10, 10, (3, 1)) * (rng.random((3, width)) < 0.7)
    scorer = InnerProduct(*(torch.from_numpy(each.astype(np.float32)) for each in (users, table)))
    who, what = np.nonzero(rng.random((3, 200)) < 0.1)
    owned = Interactions.from_pairs(who, what, 3, 200)
    admissible = rng.random(200) < 0.8 if seed % 2 else None
    found, scores = top_items(scorer, np.arange(3), owned, k, admissible=admissible)
    every = scorer.pairs(torch.arange(3), torch.arange(200).expand(3, -1)).numpy()
    for user, row in enumerate(every):
        order = [i for i in np.argsort(-row, kind="stable") if i not in owned.of(user)]
        order = [i for i in order if admissible is None or admissible[i]][:k]
        assert found[user].tolist() == order + [-1] * (k - len(order))
        assert scores[user, : len(order)].tolist() == row[order].tolist()


@pytest.mark.parametrize("broken", [np.nan, np.inf, 3e38])
def test_scores_of_a_few_users_that_are_not_finite_are_refused(broken: float) -> None:
    items = torch.ones(20, 3)
    items[7] = broken
    with pytest.raises(InputError, match="gives user 1 a score that is NaN or infinite"):
        top_items(
            InnerProduct(2 * torch.ones(2, 3), items),
            np.array([1]),
            Interactions.from_pairs(np.array([0]), np.array([0]), 2, 20),
            3,
        )


@pytest.mark.parametrize(
    ("call_", "sentence"),
    [
        (lambda t: t.recommend(["31"]), "there is no user '31' in this dataset: give what a new customer bought"),
        (lambda t: t.recommend([0.5]), r"0\.5 is no user id: give text or a whole number"),
        (lambda t: t.recommend([None]), "None is no user id"),
        (lambda t: t.recommend(["7"], 0), "must be int, at least 1, not 0"),
        (lambda t: t.recommend(["7"], items=["41"]), "there is no item '41' in this dataset: check the id"),
        (lambda t: t.recommend(["7"], where={"categry": "x"}), "the item table 'categry': did you mean 'category'"),
        (lambda t: t.recommend(["7"], where={"category": "shoe"}), "column 'category' 'shoe': did you mean 'shoes'"),
        (lambda t: t.recommend(["7"], items=["40"], without=["40"]), "no item may be recommended by these conditions"),
        (lambda t: t.similar(["7"], by="pictures"), "kind of item vectors 'pictures': did you mean 'picture'"),
        (lambda t: t.similar(["7"], by="picture"), "Fixed was given no visual features"),
        (lambda t: t.score(pd.DataFrame({"user": ["7"]})), "the table has no column 'item', only user: name it so"),
        (lambda t: t.score(pd.DataFrame({"user": ["7"], "item": [None]})), "the table has no 'item' in row 1"),
        (lambda t: t.recommend(baskets=Path("no.csv")), "there is no file no.csv: check the path"),
        (lambda t: t.recommend(baskets=Path(__file__)), r"test_serving\.py is neither \.csv nor \.parquet nor \.tsv"),
        (lambda t: t.recommend(baskets=["7"]), "'baskets' of Trained.recommend must be DataFrame or "),
    ],
)  # fmt: skip
def test_sentences(trained: Trained, call_: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        call_(trained)


def test_three_lines_to_a_first_recommendation(small_wardrobe: Dataset) -> None:
    lists = train("bpr-mf", small_wardrobe, epochs=2, factors=4, progress=False).recommend(["user-0007"], 3)
    assert lists["user"].tolist() == ["user-0007"] * 3
    with pytest.raises(InputError, match=r"BPR-MF cannot score for customers that it was not trained on: .* item-knn"):
        train("bpr-mf", small_wardrobe, epochs=1, progress=False).recommend(
            baskets=pd.DataFrame({"user": ["new"], "item": ["item-0001"]})
        )


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "bpr"
    options = {"n_users": 60, "n_items": 50, "image_size": 32}
    request = Request("bpr-mf", parameters={"epochs": 1, "factors": 4}, dataset="wardrobe", dataset_options=options)
    train_run(request.load(progress=False)[0], request, folder, progress=False)
    return folder


def test_the_commands_write_what_the_functions_give(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = open_trained(run_folder, progress=False)
    expected = trained.recommend(k=4)
    readers: dict[str, Callable[[Path], pd.DataFrame]] = {
        "csv": pd.read_csv,
        "parquet": pd.read_parquet,
        "jsonl": lambda path: pd.read_json(path, lines=True),
    }
    for ending, read in readers.items():
        path = tmp_path / f"lists.{ending}"
        status, text, err = call(monkeypatch, capsys, "recommend", str(run_folder), "--out", str(path), "-k", "4")
        assert status == 0, err
        assert "240 rows" in text
        pd.testing.assert_frame_equal(read(path), expected, check_dtype=False)
    users = tmp_path / "users.txt"
    users.write_text("user\nuser-0003\nuser-0001\n")
    status, text, _ = call(monkeypatch, capsys, "recommend", str(run_folder), "--users", str(users), "-k", "1")
    assert status == 0 and text.index("user-0003") < text.index("user-0001")
    status, text, _ = call(monkeypatch, capsys, "similar", str(run_folder), "--items", "item-0003", "-k", "2")
    assert status == 0 and text.count("item-0003") == 2
    pairs = tmp_path / "pairs.csv"
    trained.recommend(["user-0001"], 2)[["user", "item"]].to_csv(pairs, index=False)
    status, text, _ = call(monkeypatch, capsys, "score", str(run_folder), str(pairs), "--out", str(tmp_path / "s.csv"))
    assert status == 0
    scored = pd.read_csv(tmp_path / "s.csv")["score"].to_numpy()
    assert scored == pytest.approx(trained.recommend(["user-0001"], 2)["score"].to_numpy(), rel=1e-5)
    status, _, err = call(monkeypatch, capsys, "recommend", str(run_folder), "--out", str(tmp_path / "lists.xml"))
    assert status == 2 and "is neither .csv, .parquet nor .jsonl" in err and not (tmp_path / "lists.xml").exists()


def test_vectors_whose_inner_product_is_the_score(run_folder: Path, tmp_path: Path) -> None:
    trained = open_trained(run_folder, progress=False)
    write_vectors(trained, tmp_path / "a", index=True)
    users, items = (pd.read_parquet(tmp_path / "a" / f"{name}.parquet") for name in ("users", "items"))
    assert (
        users["id"].tolist() == trained.dataset.user_ids.tolist() and items["id"].tolist() == trained.item_ids.tolist()
    )
    table = np.stack(users["vector"].to_list()) @ np.stack(items["vector"].to_list()).T
    assert table[5, 7] == pytest.approx(float(trained.scorer.block(torch.tensor([5]))[0, 7]), rel=1e-5)
    index = faiss.read_index(str(tmp_path / "a" / "items.faiss"))
    _, found = index.search(np.stack(users["vector"].to_list()[:1]).astype(np.float32), 3)
    assert found[0].tolist() == np.argsort(-table[0], kind="stable")[:3].tolist()
    write_vectors(trained, tmp_path / "b", form="safetensors")
    tensors = load_file(tmp_path / "b" / "vectors.safetensors")
    assert (tensors["items"] == np.stack(items["vector"].to_list())).all()
    assert (tmp_path / "b" / "users.txt").read_text().splitlines() == users["id"].tolist()
    with pytest.raises(InputError, match="unknown format of vectors 'parqet': did you mean 'parquet'"):
        write_vectors(trained, tmp_path / "c", form="parqet")
    assert not (tmp_path / "c").exists()


def test_a_run_is_opened_where_its_data_lie_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shop_folder = tmp_path / "shop"
    shop_folder.mkdir()
    rows = [f"u{u},i{(u * 3 + j * (1 + u % 3)) % 12}" for u in range(12) for j in range(6)]
    (shop_folder / "interactions.csv").write_text("user,item\n" + "\n".join(dict.fromkeys(rows)) + "\n")
    (shop_folder / "items.csv").write_text("item\n" + "".join(f"i{i}\n" for i in range(12)))
    request = Request("poprank", dataset="table", root=str(shop_folder), dataset_options={"min_interactions": 3})
    train_run(request.load(progress=False)[0], request, tmp_path / "run", progress=False)
    shop_folder.rename(tmp_path / "moved")
    with pytest.raises(InputError, match=r"are not at .*shop: say where they lie now with --root"):
        open_trained(tmp_path / "run", progress=False)
    for root in (tmp_path / "moved", {"shop": tmp_path / "moved"}):
        assert len(open_trained(tmp_path / "run", root=root, progress=False).recommend(["u3"], 2)) == 2
    with pytest.raises(InputError, match="unknown dataset of these runs 'shp': did you mean 'shop'"):
        open_trained(tmp_path / "run", root={"shp": tmp_path / "moved"}, progress=False)
    where = ("--root", f"shop={tmp_path / 'moved'}")
    run, out = str(tmp_path / "run"), str(tmp_path / "out")
    commands = {
        "evaluate": (run,), "recommend": (run,), "refit": (run, "--out", f"{out}-refit"),
        "report": (str(tmp_path), "--out", f"{out}-report"), "explore": (run, "--notebook", f"{out}.ipynb"),
    }  # fmt: skip
    for name, arguments in commands.items():
        status, _, err = call(monkeypatch, capsys, name, *arguments, *where)
        assert status == 0, (name, err)
    assert "The pictures cannot be shown" not in (tmp_path / "out-report" / "index.html").read_text()
    (line,) = [line for line in (tmp_path / "out.ipynb").read_text().splitlines() if '"root = ' in line]
    assert f'{{\\"shop\\": \\"{tmp_path / "moved"}\\"}}' in line
    status, _, err = call(monkeypatch, capsys, "score", run, "x.csv", "--root", "a", "--root", "b")
    assert status == 2 and "--root has two places for all datasets" in err
    assert json.loads((tmp_path / "run" / "run.json").read_text())["requested"]["root"] == str(shop_folder)
