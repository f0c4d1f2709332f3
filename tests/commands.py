"""The console script, called in the test's own process."""

from __future__ import annotations

import sys

import pytest

from imgrec_lib.cli import main


def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of `imgrec <arguments>`."""
    monkeypatch.setattr(sys, "argv", ["imgrec", *arguments])
    try:
        main()
        status = 0
    except SystemExit as exit_:
        status = int(exit_.code or 0)
    out, err = capsys.readouterr()
    return status, out, err
