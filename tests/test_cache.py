"""What the cache holds is listed with its size, and what was long unused is deleted; what is opened counts as used."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from commands import call

from imgrec_lib import list_cache, load_dataset, prune_cache
from imgrec_lib.cache import DAY, KINDS
from imgrec_lib.errors import InputError


def age(path: Path, days: float) -> None:
    moment = time.time() - days * DAY
    for inner in [*path.rglob("*"), path]:
        os.utime(inner, (moment, moment))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A folder of 3,000 bytes unused for 40 days, a file of 500 for 10, a lock, and what a killed process has left."""
    folder = tmp_path / "cache"
    (folder / "images" / "shop").mkdir(parents=True)
    (folder / "images" / "shop" / "pixels.npy").write_bytes(b"x" * 3000)
    (folder / "activations").mkdir()
    (folder / "activations" / "net.npy").write_bytes(b"x" * 500)
    (folder / "activations" / ".net.npy.lock").touch()
    (folder / "activations" / ".net.npy.abc.part").mkdir()
    age(folder / "images" / "shop", 40)
    age(folder / "activations" / "net.npy", 10)
    return folder


def test_list(cache: Path) -> None:
    first, second = list_cache(cache)
    assert (first.kind, first.path.name, first.n_bytes, round(first.days_unused)) == ("images", "shop", 3000, 40)
    assert (second.kind, second.path.name, second.n_bytes, round(second.days_unused)) == (
        "activations", "net.npy", 500, 10,
    )  # fmt: skip
    assert list_cache(cache / "nowhere") == []


def test_prune_deletes_what_was_unused_for_so_long_and_what_was_abandoned(cache: Path) -> None:
    assert [kept.path.name for kept in prune_cache(30, cache=cache, dry_run=True)] == ["shop"]
    assert (cache / "images" / "shop").is_dir() and (cache / "activations" / ".net.npy.abc.part").is_dir()
    assert [kept.path.name for kept in prune_cache(30, cache=cache)] == ["shop"]
    assert [kept.path.name for kept in list_cache(cache)] == ["net.npy"]
    assert not (cache / "activations" / ".net.npy.abc.part").exists()
    prune_cache(0, cache=cache)
    assert list_cache(cache) == []


@pytest.mark.parametrize("days", [-1, float("nan"), "a week"])
def test_a_number_of_days_is_wanted(cache: Path, days: float) -> None:
    with pytest.raises(InputError, match="argument 'unused_for' of prune_cache must be float, at least 0, not "):
        prune_cache(days, cache=cache)


def test_what_is_opened_counts_as_used(tmp_path: Path) -> None:
    def load() -> None:
        load_dataset("wardrobe", n_users=20, n_items=20, image_size=8, cache=tmp_path, progress=False)

    load()
    [kept] = list_cache(tmp_path)
    assert kept.kind in KINDS
    age(kept.path, 50)
    load()
    assert list_cache(tmp_path)[0].days_unused < 1


def test_command(cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("IMGREC_CACHE", str(cache))
    status, out, _ = call(monkeypatch, capsys, "cache")
    assert status == 0 and "40 days unused" in out and out.splitlines()[-1].endswith(f"MB kept in {cache}")
    status, out, _ = call(monkeypatch, capsys, "cache", "prune", "--dry-run", "--json")
    assert [row["n_bytes"] for row in json.loads(out)] == [3000] and len(list_cache(cache)) == 2
    status, out, _ = call(monkeypatch, capsys, "cache", "prune", "--unused-for", "5")
    assert status == 0 and "deleted" in out and list_cache(cache) == []
    status, _, err = call(monkeypatch, capsys, "cache", "empty")
    assert status == 2 and "takes 'list' or 'prune', not 'empty'" in err
