"""Features and activations of pictures that did not change are taken over, to the bit; the others are computed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from imgrec_lib.data.images import Earlier, ImageStore
from imgrec_lib.features import Backbone, build_backbone, extract_features
from imgrec_lib.features.activations import trunk_activations

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)


def after_a_change(first: ImageStore, replaced: bool) -> ImageStore:
    """Item 0 is new, item 3 has another picture, and what was item 4 is gone."""
    new = np.random.default_rng(1).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    pixels = np.stack([new[0], PIXELS[0], PIXELS[1], new[1], PIXELS[3]])
    rows = np.array([-1, 0, 1, -1, 3])
    return replace(ImageStore.from_array(pixels), earlier=(Earlier(first.fingerprint, replaced, rows),))


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures each step of the network has seen."""
    counts: list[int] = []
    preprocess = Backbone.preprocess

    def noted(self: Backbone, pixels: object) -> object:
        counts.append(len(pixels))  # type: ignore[arg-type]
        return preprocess(self, pixels)  # type: ignore[arg-type]

    monkeypatch.setattr(Backbone, "preprocess", noted)
    return counts


def test_features_of_two_new_pictures(tmp_path: Path, looked_at: list[int]) -> None:
    first = ImageStore.from_array(PIXELS)
    before = np.array(extract_features(first, size=32, cache=tmp_path, progress=False).values)
    looked_at.clear()
    second = after_a_change(first, replaced=True)
    after = extract_features(second, size=32, cache=tmp_path, progress=False).values
    assert sum(looked_at) == 2
    np.testing.assert_array_equal(after[[1, 2, 4]], before[[0, 1, 3]])
    afresh = extract_features(replace(second, earlier=()), size=32, cache=tmp_path / "other", progress=False)
    np.testing.assert_allclose(after, afresh.values, rtol=1e-4, atol=1e-5)
    assert len([path for path in (tmp_path / "features").iterdir() if path.is_dir()]) == 1


def test_activations_of_two_new_pictures(tmp_path: Path, looked_at: list[int]) -> None:
    import torch

    network = build_backbone("efficientnet-lite0", size=32)
    first = ImageStore.from_array(PIXELS)
    before = trunk_activations(first, network, cache=tmp_path, progress=False).rows(torch.arange(5))
    looked_at.clear()
    second = after_a_change(first, replaced=True)
    after = trunk_activations(second, network, cache=tmp_path, progress=False).rows(torch.arange(5))
    assert sum(looked_at) == 2
    assert torch.equal(after[[1, 2, 4]], before[[0, 1, 3]])
    afresh = trunk_activations(second, network, keep="memory", progress=False).rows(torch.arange(5))
    torch.testing.assert_close(after, afresh, rtol=1e-2, atol=1e-2)
    assert len(list((tmp_path / "activations").glob("*.npy"))) == 1
