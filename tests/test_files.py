"""Caches: what is made is made once, and a cache that cannot be written gets one sentence wherever it is met."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from imgrec_lib import InputError, extract_features
from imgrec_lib.data.dataset import Interactions, TrainingData
from imgrec_lib.data.images import ImageStore
from imgrec_lib.data.storing import cached_images
from imgrec_lib.features import attribute_labels, build_backbone
from imgrec_lib.features.activations import trunk_activations
from imgrec_lib.features.attributes import FeatureMaps, train_heads
from imgrec_lib.files import cached, default_cache, replacing

PICTURES = ImageStore.from_array(np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8))


def prepare_images(cache: Path) -> None:
    cached_images("shop", list(PICTURES.pixels), [str(i) for i in range(12)], cache, size=4, progress=False)


def extract(cache: Path) -> None:
    extract_features(PICTURES, size=32, cache=cache, progress=False)


def activate(cache: Path) -> None:
    trunk_activations(PICTURES, build_backbone(size=32), cache=cache, progress=False)


def learn_attributes(cache: Path) -> None:
    table = pd.DataFrame({"colour": ["red", "blue"] * 6})
    pairs = Interactions.from_pairs(np.array([0]), np.array([0]), 1, 12)
    network = build_backbone(size=32)
    maps = FeatureMaps(PICTURES, network, keep="disk", cache=cache, progress=False)
    train_heads(maps, attribute_labels(TrainingData(pairs, attributes=table)))


CACHES: list[Callable[[Path], None]] = [prepare_images, extract, activate, learn_attributes]


@pytest.mark.parametrize("fill", CACHES, ids=lambda fill: fill.__name__)
def test_a_cache_that_cannot_be_written_says_so_and_the_remedy_works(
    fill: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_the_way = tmp_path / "cache"
    in_the_way.write_text("a file, where the cache should be")
    monkeypatch.setenv("IMGREC_CACHE", str(in_the_way))
    with pytest.raises(InputError) as caught:
        fill(in_the_way)
    assert str(in_the_way) in str(caught.value)
    assert str(caught.value).endswith(
        "): choose a cache folder where you may write files (IMGREC_CACHE, or `cache` where you gave it)."
    )
    monkeypatch.setenv("IMGREC_CACHE", str(tmp_path / "other"))
    fill(tmp_path / "other")


def test_what_is_valid_is_not_made_again_and_what_fails_leaves_nothing(tmp_path: Path) -> None:
    path, made = tmp_path / "cache" / "numbers.txt", []

    def make(content: str) -> Callable[[Path], None]:
        def fill(temporary: Path) -> None:
            made.append(content)
            temporary.write_text(content)

        return fill

    def says(content: str) -> Callable[[Path], bool]:
        return lambda place: place.is_file() and place.read_text() == content

    for content in ("one", "one", "two"):
        assert cached(path, make(content), says(content), replacing) == path
        assert path.read_text() == content
    assert made == ["one", "two"]

    def fail(temporary: Path) -> None:
        temporary.mkdir(exist_ok=True)
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        cached(tmp_path / "cache" / "folder", fail)
    assert sorted(left.name for left in path.parent.iterdir() if not left.name.endswith(".lock")) == ["numbers.txt"]


def test_two_at_once_make_it_once(tmp_path: Path) -> None:
    made = []

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "part").write_text("x")

    threads = [threading.Thread(target=cached, args=(tmp_path / "kept", make)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1 and (tmp_path / "kept" / "part").read_text() == "x"


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def unknown(number: int) -> None:
        raise KeyError(number)

    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", unknown)
    monkeypatch.setenv("IMGREC_CACHE", str(tmp_path))
    assert default_cache() == tmp_path
    monkeypatch.delenv("IMGREC_CACHE")
    with pytest.raises(InputError, match="no home folder: say with IMGREC_CACHE"):
        default_cache()
