"""Every public function shows an example in its docstring, which runs as it stands and answers what it says."""

from __future__ import annotations

import doctest
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import imgrec_lib
from imgrec_lib import Trained, data
from imgrec_lib.models import registry

PUBLIC = {name: getattr(imgrec_lib, name) for name in imgrec_lib.__all__}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{name: value for name, value in PUBLIC.items() if inspect.isfunction(value)},
    **{f"Trained.{name}": f for name, f in vars(Trained).items() if inspect.isfunction(f) and not name.startswith("_")},
}
CLASSES = {name: value for name, value in PUBLIC.items() if inspect.isclass(value) and ">>>" in (value.__doc__ or "")}


@pytest.mark.slow
@pytest.mark.parametrize("name", [*FUNCTIONS, *CLASSES])
def test_an_example_runs_as_it_stands(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for additions in (data._added, registry._added):  # what an example registers does not stay
        monkeypatch.setattr(additions, "_registered", {})
    documented = (FUNCTIONS | CLASSES)[name]
    examples = doctest.DocTestParser().get_doctest(inspect.getdoc(documented) or "", {}, name, None, 0)
    assert examples.examples, "has no example"
    wrong: list[str] = []
    doctest.DocTestRunner().run(examples, out=wrong.append)
    assert not wrong, "".join(wrong)
