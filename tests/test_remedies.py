"""Every remedy that a sentence names is there: options, commands and extras."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import typer.main
from paths import ROOT

from imgrec_lib.cli import app
from imgrec_lib.extras import EXTRAS

SPEAKS = {"InputError", "EmptyTable", "tell", "warn"}


def sentences() -> Iterator[tuple[str, str]]:
    """Where a sentence for the user stands, and its constant parts."""
    for path in sorted((ROOT / "imgrec_lib").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in SPEAKS:
                texts = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant)]
                yield f"{path.relative_to(ROOT)}:{node.lineno}", " ".join(t for t in texts if isinstance(t, str))


def test_options_commands_and_extras_that_sentences_name_exist() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    options = {
        each
        for command in commands.values()
        for option in command.params
        for each in (*option.opts, *option.secondary_opts)
    }
    others = {"--nproc-per-node", "--no-python", "--nthreads"}  # of torchrun and of dask worker
    found = {"options": 0, "commands": 0, "extras": 0}
    for where, text in sentences():
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", text):
            assert option in options | others, f"{where} names {option}"
            found["options"] += 1
        for command in re.findall(r"'imgrec ([a-z-]+)", text):
            assert command in commands, f"{where} names imgrec {command}"
            found["commands"] += 1
        for extra in re.findall(r"imgrec\[([a-z-]+)\]", text):
            assert extra in EXTRAS, f"{where} names the extra {extra}"
            found["extras"] += 1
    assert found["options"] > 5 and found["commands"] > 2, found
