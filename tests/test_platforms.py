"""Windows has neither fcntl nor resource: the library is imported, reads, trains and writes without them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from imgrec_lib import files
from imgrec_lib.files import ABANDONED_AFTER, remove_abandoned, write_text

WITHOUT = """
import sys
for name in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules[name] = None
import pkgutil, importlib
import imgrec_lib, imgrec_lib.cli
for module in pkgutil.walk_packages(imgrec_lib.__path__, "imgrec_lib."):
    importlib.import_module(module.name)
from imgrec_lib import load_dataset, train_run
dataset = load_dataset("wardrobe", n_users=40, n_items=50, image_size=8, progress=False, cache="cache")
run = train_run(dataset, "poprank", "run", progress=False)  # a folder may also be given as text
print(run.record.cost.peak_memory_bytes, run.metrics["exact"]["auc"] > 0)
"""


@pytest.mark.slow
def test_nothing_needs_what_windows_does_not_have(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", WITHOUT], cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == ["None", "True"]


def test_where_no_folder_can_be_locked_age_tells_what_is_abandoned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "fcntl", None)
    new, old = tmp_path / ".a.1.part", tmp_path / ".b.2.part"
    for folder in (new, old):
        folder.mkdir()
    long_ago = time.time() - ABANDONED_AFTER - 60
    os.utime(old, (long_ago, long_ago))
    remove_abandoned(tmp_path)
    assert new.is_dir() and not old.exists()
    write_text(tmp_path / "a.txt", "written")
    assert (tmp_path / "a.txt").read_text() == "written"
