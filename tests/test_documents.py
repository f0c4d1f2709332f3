"""What the documents say that a reader would try: their links lead somewhere, their commands are understood."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
from paths import ROOT

from imgrec_lib.cli import app
from imgrec_lib.notebooks import notebooks_folder

DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"]
DOCUMENTS += [*(ROOT / "docs").glob("*.md"), *notebooks_folder().glob("*.ipynb")]


def text_of(path: Path) -> str:
    if path.suffix != ".ipynb":
        return path.read_text(encoding="utf-8")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def commands(text: str) -> list[list[str]]:
    """The `imgrec ...` commands of a document's blocks of code and of its running text, as words."""
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    blocks += re.findall(r"(?:^    imgrec .*\n(?:^    .*\n)*)", text, re.MULTILINE)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    lines += [" ".join(inline.split()) for inline in re.findall(r"`(imgrec\s[^`]*)`", text)]
    found = [re.split(r" imgrec (?=[a-z])", f" {line}", maxsplit=1) for line in lines]
    split = [shlex.split(parts[1], comments=True) for parts in found if len(parts) == 2]
    return [words[: words.index("&&")] if "&&" in words else words for words in split]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", text_of(path)):
        if not re.match(r"https?:|#", link):
            assert (path.parent / link.partition("#")[0]).exists(), link


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_are_named_are_in_the_repository(path: Path) -> None:
    """What git ignores, such as a report that nobody has added, is in no clone."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this is no clone")
    kept = set(listed.stdout.splitlines())
    named = re.findall(r"\b(?:reports|matrices|benchmarks|robustness|tests)/[\w/-]+\.(?:md|yaml|py)\b", text_of(path))
    assert set(named) <= kept


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_commands_are_understood(path: Path) -> None:
    """Every command exists, and every option that stands with it; what the values would do is not tried."""
    known: Any = typer.main.get_command(app)
    for words in commands(text_of(path)):
        if words[0].startswith("-") or "..." in words[0]:
            continue
        command = known.commands.get(words[0])
        assert command is not None, words
        options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
        for word in words[1:]:
            if word.startswith("-") and not re.fullmatch(r"-[\d.]+", word):
                assert word.partition("=")[0] in {*options, "--help"}, words


def test_commands_are_found() -> None:
    text = "```sh\nimgrec run a.yaml --dry-run  # why\nln -s x y && imgrec serve y\n```\n\n"
    text += "    imgrec models\n\n`imgrec\nwatch m`"
    assert commands(text) == [["run", "a.yaml", "--dry-run"], ["serve", "y"], ["models"], ["watch", "m"]]
