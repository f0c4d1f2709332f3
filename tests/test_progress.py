"""Progress that crosses processes: a bar is kept in a file, which another process draws; and it is drawn as ever where
no file is named."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from imgrec_lib.progress import PLACE, Work, progress_bar, showing


def test_a_bar_is_kept_where_a_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "n.progress.json"
    monkeypatch.setenv(PLACE, str(place))
    with progress_bar(total=800, desc="features", unit="image", mininterval=0) as bar:
        assert Work.read(place) == Work("features", 0, 800, "image")
        bar.update(4)
        bar.set_postfix(loss="0.5")
        assert Work.read(place) == Work("features", 4, 800, "image", "loss=0.5")
        assert str(Work.read(place)) == "features: 4 of 800, loss=0.5"
    assert list(progress_bar(range(3), desc="epochs")) == [0, 1, 2]
    assert Work.read(place) == Work("epochs", 3, 3, "it")
    assert capsys.readouterr() == ("", "")
    place.unlink()
    list(progress_bar(range(3), disable=True))
    assert not place.exists() and Work.read(place) is None
    place.write_text("{")
    assert Work.read(place) is None


def test_a_bar_is_drawn_where_no_file_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(PLACE, raising=False)
    list(progress_bar(range(3), desc="epochs"))
    assert "epochs: 100%" in capsys.readouterr().err


def test_another_process_s_bars_are_drawn_one_for_each_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "n.progress.json"
    monkeypatch.setenv(PLACE, str(place))
    with showing(place, every=0.01):
        for title in ("features", "training"):
            with progress_bar(total=10, desc=title, mininterval=0) as bar:
                for _ in range(10):
                    bar.update()
                    time.sleep(0.02)
    drawn = capsys.readouterr().err
    # Each is drawn from its start to its end, and its line ends once.
    assert drawn.count("\n") == 2 and drawn.index("training") > drawn.rindex("features") > 0
    assert "10/10" in drawn
