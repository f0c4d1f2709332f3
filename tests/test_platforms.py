"""Windows has neither fcntl nor resource: the library works without them; and it works from odd folders and homes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from paths import ROOT

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


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="how root is kept from writing anywhere is told of Linux alone")
def test_a_home_that_cannot_be_written_is_one_sentence_and_what_it_advises_helps(tmp_path: Path) -> None:
    """The clone's own path has all that a path may have: blanks, other letters, %, # and a dash at its beginning."""
    clone, home = tmp_path / "-a clone \u65e5\u672c 100% #1", tmp_path / "home"
    clone.mkdir()
    (clone / "imgrec_lib").symlink_to(ROOT / "imgrec_lib", target_is_directory=True)
    home.mkdir()
    home.chmod(0o555)
    rights = "-dac_override,-dac_read_search"
    as_another = ["setpriv", f"--bounding-set={rights}", f"--inh-caps={rights}"] if os.geteuid() == 0 else []
    if as_another and shutil.which("setpriv") is None:
        pytest.skip("root writes everywhere, and there is no setpriv")
    options = [
        "-o",
        "n_users=40",
        "-o",
        "n_items=50",
        "-o",
        "image_size=32",
        "-p",
        "epochs=1",
        "--no-notebook",
        "--quiet",
    ]
    program = [sys.executable, "-c", "from imgrec_lib.cli import main; main()"]
    command = [*as_another, *program, "train", "--model", "bpr-mf", *options, "--out", "runs/a"]
    kept = {name: value for name, value in os.environ.items() if name not in ("IMGREC_CACHE", "XDG_CACHE_HOME")}
    env = kept | {"HOME": str(home), "PYTHONPATH": str(clone)}
    refused = subprocess.run(command, cwd=clone, env=env, capture_output=True, text=True, check=False)
    assert refused.returncode == 2 and "(IMGREC_CACHE" in refused.stderr, refused.stderr
    advised = env | {"IMGREC_CACHE": str(clone / "cache")}
    done = subprocess.run(command, cwd=clone, env=advised, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and (clone / "runs" / "a" / "run.json").is_file(), done.stderr
    home.chmod(0o755)
