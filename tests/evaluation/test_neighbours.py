"""Neighbour search: exact against brute force, ties, the recall of an approximate search; faiss beside PyTorch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from imgrec_lib.errors import InputError
from imgrec_lib.evaluation import neighbours
from imgrec_lib.evaluation.neighbours import nearest_to, search_neighbours


def brute_force(vectors: np.ndarray, queries: list[int], k: int, exclude: bool) -> list[list[int]]:
    """By a stable sort of exact cosines, which small integers of equal length have."""
    lists = []
    for query in queries:
        cosines = [sum(int(a) * int(b) for a, b in zip(vectors[query], row, strict=True)) for row in vectors]
        order = sorted(range(len(vectors)), key=lambda i: (-cosines[i], i))
        lists.append([i for i in order if not (exclude and i == query)][:k])
    return lists


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 90), st.integers(1, 30), st.booleans(), st.sampled_from([7, 16384]))
def test_exact_search_is_a_stable_sort_however_many_tie(
    seed: int, n_items: int, k: int, exclude: bool, at_once: int
) -> None:
    """Rows of +-1 all have the same length; with four of them nearly everything ties."""
    rng = np.random.default_rng(seed)
    vectors = rng.choice([-1.0, 1.0], size=(n_items, 4)).astype(np.float32)
    queries = rng.integers(0, n_items, 3).tolist()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "ITEMS_AT_ONCE", at_once)
        found = search_neighbours(vectors, queries, k, exclude_self=exclude)
    assert found.items.tolist() == brute_force(vectors, queries, k, exclude)
    assert found.recall == 1
    cosines = vectors[queries][:, None] * vectors[found.items]
    np.testing.assert_array_equal(found.similarity, cosines.sum(2) / 4)


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 30), st.integers(1, 6), st.integers(1, 40), st.booleans())
def test_nearest_equals_brute_force(seed: int, n_items: int, width: int, k: int, exclude: bool) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(n_items, width)).astype(np.float32)
    vectors[rng.integers(n_items)] = 0
    queries = rng.integers(0, n_items, 3)
    found = search_neighbours(vectors, queries.tolist(), k, exclude_self=exclude)
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
    for row, query in enumerate(queries):
        cosines = np.zeros(n_items)
        for other in range(n_items):
            if norms[query] > 0 and norms[other] > 0:
                cosines[other] = vectors[query].astype(np.float64) @ vectors[other] / (norms[query] * norms[other])
        others = [i for i in range(n_items) if not (exclude and i == query)]
        expected = sorted((cosines[i] for i in others), reverse=True)[:k]
        np.testing.assert_allclose(found.similarity[row], expected, atol=1e-5)
        np.testing.assert_allclose(cosines[found.items[row]], expected, atol=1e-5)
        assert len(set(found.items[row].tolist())) == len(expected)
        assert not (exclude and int(query) in found.items[row].tolist())


def test_nearest_breaks_ties_by_index_and_takes_tensors_and_blocks() -> None:
    vectors = torch.tensor([[1.0, 0], [2, 0], [0, 1], [3, 0], [0, 0]], dtype=torch.float64)
    found = search_neighbours(vectors, [3, 4], 4)
    assert found.items.tolist() == [[0, 1, 2, 4], [0, 1, 2, 3]]
    assert found.similarity.tolist() == [[1, 1, 0, 0], [0, 0, 0, 0]]
    many = np.random.default_rng(0).normal(size=(20_000, 3)).astype(np.float32)
    many[17_000] = 2 * many[5]
    assert search_neighbours(many, [5], 1).items.tolist() == [[17_000]]


def test_one_vector_finds_what_an_item_with_it_would(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "ITEMS_AT_ONCE", 7)
    vectors = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
    vectors[[3, 8]] = vectors[20]
    expected = search_neighbours(vectors, [20], 6, exclude_self=False)
    items, similarity = nearest_to(torch.from_numpy(vectors), torch.from_numpy(vectors[20]), 6)
    assert items.tolist() == expected.items[0].tolist() and items[:3].tolist() == [3, 8, 20]
    np.testing.assert_allclose(similarity, expected.similarity[0], atol=1e-6)


def clustered(n_items: int = 3000) -> np.ndarray:
    rng = np.random.default_rng(3)
    return (rng.normal(size=(30, 16))[rng.integers(30, size=n_items)] + rng.normal(size=(n_items, 16))).astype("f4")


def test_an_approximate_search_states_its_recall() -> None:
    vectors, queries = clustered(), np.arange(0, 3000, 15)
    exact = search_neighbours(vectors, queries, 10)
    recalls = []
    for probes in (1, 6, 54):
        found = search_neighbours(torch.from_numpy(vectors), queries, 10, probes=probes)
        hits = [len(set(a.tolist()) & set(b.tolist())) for a, b in zip(found.items, exact.items, strict=True)]
        assert found.recall == pytest.approx(np.mean(hits) / 10)  # fewer queries than the sample: all were measured
        assert not (found.items == queries[:, None]).any()
        recalls.append(found.recall)
    assert recalls[0] < recalls[1] < recalls[2] == 1
    assert found.items.tolist() == exact.items.tolist()


def test_an_approximate_list_may_be_short() -> None:
    vectors = np.eye(50, dtype=np.float32)
    found = search_neighbours(vectors, [4], 20, probes=1)
    assert found.items.shape == (1, 20) and found.recall < 1
    assert ((found.items == -1) == np.isneginf(found.similarity)).all() and (found.items[0] == -1).any()


def test_a_catalogue_of_one_has_no_neighbours() -> None:
    assert search_neighbours(np.ones((1, 3)), [0], 5).items.shape == (1, 0)
    assert search_neighbours(np.ones((1, 3)), [0], 5, exclude_self=False).items.tolist() == [[0]]


def test_memory_mapped_vectors_are_read_block_by_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = clustered(500)
    np.save(tmp_path / "values.npy", vectors)
    expected = search_neighbours(vectors, [1, 2], 5)
    monkeypatch.setattr(neighbours, "ITEMS_AT_ONCE", 64)
    found = search_neighbours(np.load(tmp_path / "values.npy", mmap_mode="r"), [1, 2], 5)
    assert found.items.tolist() == expected.items.tolist()


@pytest.mark.parametrize(("k", "probes", "query"), [(0, 0, 0), (1, -1, 0), (1, 0, 9), (1, 0, -1)])
def test_what_makes_no_sense_is_refused(k: int, probes: int, query: int) -> None:
    with pytest.raises(InputError):
        search_neighbours(np.eye(9), [query], k, probes=probes)


@pytest.mark.slow
@pytest.mark.parametrize("first", ["faiss", "torch"])
def test_faiss_and_torch_work_together_in_either_order(first: str) -> None:
    """Each brings its own OpenMP: a crash or a hang would show here."""
    program = f"""
import {first}, faiss, torch, numpy as np
from imgrec_lib.evaluation.neighbours import nearest_to, search_neighbours
for threads in (1, 2):
    torch.set_num_threads(threads)
    a = torch.randn(200, 200) @ torch.randn(200, 200)
    assert search_neighbours(np.eye(300, dtype="f4"), [0, 1], 2, exclude_self=False).items[:, 0].tolist() == [0, 1]
    assert (torch.ones(200, 200) @ torch.ones(200, 200) == 200).all()
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
