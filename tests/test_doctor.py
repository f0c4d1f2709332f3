"""What `imgrec doctor` says: true, without the user's name, and with a sentence for what needs mending."""

from __future__ import annotations

import json
import platform
import shutil
import types
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from commands import call
from paths import ROOT

from imgrec_lib import Request, train_run
from imgrec_lib import doctor as module
from imgrec_lib.doctor import as_text, diagnosis

Capture = pytest.CaptureFixture[str]


def test_json_and_text_say_the_same(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    status, out, _ = call(monkeypatch, capsys, "doctor", "--json")
    found = json.loads(out)
    assert status == 0 and found["problems"] == []
    assert found["python"]["version"] == platform.python_version()
    assert found["versions"]["torch"] == version("torch") and found["versions"]["typer"] == version("typer")
    assert set(found) == {
        "imgrec", "python", "system", "versions", "extras", "devices", "kernel", "cache", "disk", "data", "problems",
    }  # fmt: skip
    assert found["data"]["notebooks"] == str(len(list((ROOT / "notebooks").glob("*.ipynb"))))
    status, out, _ = call(monkeypatch, capsys, "doctor")
    assert status == 0 and out.endswith("problems\n    none\n")
    for topic in ("versions", "devices"):
        for name, value in found[topic].items():
            assert f"    {name}: {value}\n" in out


def test_a_full_disk_and_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("IMGREC_CACHE", str(tmp_path / "kept" / "cache"))
    usage = types.SimpleNamespace(free=10**9)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage)
    monkeypatch.setattr(module, "_writable", lambda place: False)
    found = diagnosis()
    assert found["cache"]["folder"] == "~/kept/cache" and str(tmp_path) not in as_text(found["cache"] and found)
    assert found["problems"] == [
        "the disk of cache has 1.0 GB left: free some space.",
        "the disk of this folder has 1.0 GB left: free some space.",
        "the cache ~/kept/cache cannot be written: say with IMGREC_CACHE where it may be.",
    ]


def test_runs_whose_data_were_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    shop = tmp_path / "shop"
    shop.mkdir()
    rows = [f"u{u},i{(u * 3 + j * (1 + u % 3)) % 12}" for u in range(12) for j in range(6)]
    (shop / "interactions.csv").write_text("user,item\n" + "\n".join(dict.fromkeys(rows)) + "\n")
    (shop / "items.csv").write_text("item\n" + "".join(f"i{i}\n" for i in range(12)))
    request = Request("poprank", dataset="table", root=str(shop), dataset_options={"min_interactions": 3})
    train_run(request.load(progress=False)[0], request, tmp_path / "runs" / "pop", progress=False)
    assert diagnosis(tmp_path / "runs")["runs"] == {"pop": "data are there"}
    shop.rename(tmp_path / "moved")
    status, out, _ = call(monkeypatch, capsys, "doctor", str(tmp_path / "runs"))
    assert status == 1 and f"run pop: its data are no longer at {shop}: say with --root where they lie now." in out


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_version", lambda name: None if name == "faiss-cpu" else "1")
    assert "faiss-cpu is not installed: install imgrec again." in diagnosis()["problems"]


def test_the_issue_form_asks_for_it() -> None:
    form = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / "bug.yml").read_text())
    assert any("`imgrec doctor`" in field["attributes"]["label"] for field in form["body"])
