"""The book builds without a warning (a dead link within it is one), and shows itself without asking a network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from paths import ROOT

from imgrec_lib.models import list_models

pytestmark = pytest.mark.slow


def test_the_first_chapter_runs_as_it_stands(tmp_path: Path) -> None:
    """The quick build of the book, below, executes nothing; `make book` does."""
    chapter = (ROOT / "docs" / "start.md").read_text(encoding="utf-8")
    cells = re.findall(r"^```\{code-cell\} python\n(?::[^\n]*\n)?(.*?)^```", chapter, re.DOTALL | re.MULTILINE)
    assert len(cells) == chapter.count("{code-cell}") == 4
    done = subprocess.run([sys.executable, "-c", "\n".join(cells)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = re.findall(r"^(BPR-MF|ImgRec-FT) +AUC (0\.\d+) +hit ratio at 10 (0\.\d+)$", done.stdout, re.MULTILINE)
    assert [name for name, _, _ in said] == ["BPR-MF", "ImgRec-FT"] and all(float(auc) > 0.75 for _, auc, _ in said)


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if find_spec("myst_nb") is None:
        pytest.skip("the extra book is not installed")
    folder = tmp_path_factory.mktemp("book")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "sphinx",
            "-q",
            "-W",
            "--keep-going",
            "-d",
            folder / "trees",
            ROOT / "docs",
            folder / "html",
        ],
        env={**os.environ, "IMGREC_BOOK_NOTEBOOKS": "off"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder / "html"


@pytest.mark.slow
def test_every_model_has_a_page_and_those_of_the_reports_have_their_row(book: Path) -> None:
    formulas = yaml.safe_load((ROOT / "docs" / "formulas.yaml").read_text(encoding="utf-8"))
    ours = {name: card for name, card in list_models().items() if card.build.__module__.startswith("imgrec_lib.")}
    assert formulas.keys() <= ours.keys()
    for name, card in ours.items():
        text = (book / "generated" / "models" / f"{name}.html").read_text(encoding="utf-8")
        assert card.title in text
        assert 'class="math' in text or name not in formulas, name
    text = (book / "generated" / "models" / "deepstyle.html").read_text(encoding="utf-8")
    assert "0.8682" in text and "0.5669" in text  # AUC and cold AUC in reports/hm-week.md


def test_pages_load_nothing_from_elsewhere(book: Path) -> None:
    pages = sorted(book.rglob("*.html"))
    assert len(pages) > 40
    for page in pages:
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|iframe)[^>]*\ssrc=\"([^\"]*)\"", text)
        loaded += re.findall(r"<link[^>]*rel=\"(?:stylesheet|preload|icon)\"[^>]*href=\"([^\"]*)\"", text)
        assert not [address for address in loaded if re.match(r"(https?:)?//", address)], page
