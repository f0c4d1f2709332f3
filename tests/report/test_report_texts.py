"""The tables as Markdown, LaTeX and CSV files: compiled where there is a TeX engine, parsed everywhere."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from pylatexenc.latexwalker import LatexEnvironmentNode, LatexWalker
from records import with_cold_items, write_run
from toy import planted_dataset
from typer.testing import CliRunner

from imgrec_lib.cli import app
from imgrec_lib.errors import InputError
from imgrec_lib.report import write_report
from imgrec_lib.report.formats import latex_text
from imgrec_lib.report.sections import Block, Section
from imgrec_lib.report.texts import END, START, insert_results, write_tables

HOSTILE = r"50% of A&B_c #1 {x} ~ ^ \ $y$ <z> | “q” ≤ … ± † " + "\N{MINUS SIGN}"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten models, so that the table of pairs is longer than a page, one with a hostile name."""
    root = tmp_path_factory.mktemp("runs")
    shop = with_cold_items(planted_dataset(n_users=40, n_items=70)[0])
    for model in ("warp", "bpr-mf", "fm-id", "visrank", "vbpr", "deepstyle", "jrl", "imgrec-dir", "imgrec-ft"):
        write_run(root / model, shop, model, oracle=True)
    write_run(root / "hostile", shop, "poprank", title=HOSTILE, oracle=True, versions={"imgrec": "9.9", "torch": "1"})
    return root


@pytest.fixture(scope="module")
def report(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(runs, tmp_path_factory.mktemp("report"), pictures=False, progress=False).parent


def environments(text: str) -> list[LatexEnvironmentNode]:
    """All environments of a text, at any depth; unbalanced braces or environments are an error."""
    found, waiting = [], list(LatexWalker(text, tolerant_parsing=False).get_latex_nodes()[0])
    while waiting:
        node = waiting.pop(0)
        if node is None:
            continue
        if isinstance(node, LatexEnvironmentNode):
            found.append(node)
        inner = list(getattr(node, "nodelist", None) or [])
        arguments = getattr(node, "nodeargd", None)
        waiting += inner + list((arguments.argnlist if arguments else None) or [])
    return found


@pytest.mark.slow
def test_every_row_of_a_latex_table_has_as_many_cells_as_it_declares_columns(report: Path) -> None:
    files = sorted((report / "tables").glob("*.tex"))
    assert len(files) > 8
    for path in files:
        text = path.read_text()
        (tabular,) = environments(text)
        assert tabular.environmentname == "tabular", path.name
        lines = text.splitlines()
        columns = lines[0].removeprefix("\\begin{tabular}{").removesuffix("}")
        assert set(columns) == {"l", "r"} and columns[0] == "l"
        rules = [line for line in lines if line in ("\\toprule", "\\midrule", "\\bottomrule")]
        assert rules == ["\\toprule", "\\midrule", "\\bottomrule"]
        rows = [line for line in lines if line.endswith(r"\\")]
        frame = pd.read_csv(path.with_suffix(".csv"), index_col=0)
        assert len(rows) == 1 + len(frame)
        assert {row.replace(r"\&", "").count("&") for row in rows} == {len(columns) - 1}, path.name


def test_the_whole_document_is_balanced(report: Path) -> None:
    names = [node.environmentname for node in environments((report / "tables.tex").read_text())]
    assert names.count("longtable") == 1  # the 45 pairs
    assert names.count("table") == names.count("tabular") > 8


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="needs pdflatex: install TeX Live")
def test_the_document_compiles(report: Path, tmp_path: Path) -> None:
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", f"-output-directory={tmp_path}"]
    done = subprocess.run([*command, report / "tables.tex"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "tables.pdf").stat().st_size > 10_000 and "Missing character" not in done.stdout


def test_special_characters_of_latex_are_escaped() -> None:
    assert latex_text("50% & $x_1") == r"50\% \& \$x\_1" and latex_text("<a>") == "$<$a$>$"


@pytest.mark.slow
def test_markdown_for_a_repository(runs: Path, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"# Mine\n\nbefore\n\n{START}\nold numbers\n{END}\n\nafter\n")
    arguments = ["report", str(runs), "--out", str(tmp_path / "out"), "--no-pictures", "--title", "A week",
                 "--markdown", str(tmp_path / "week.md"), "--insert", str(readme)]  # fmt: skip
    assert CliRunner().invoke(app, arguments).exit_code == 0
    week, text = (tmp_path / "week.md").read_text(), readme.read_text()
    assert week.startswith("# A week\n\nMade by `imgrec report` from the records of 10 runs, finished 2026-01-01 with")
    assert "imgrec 9.9 and ?" in week.splitlines()[2] and "Pictures are left out." in week.splitlines()[2]
    table = (tmp_path / "out" / "tables" / "planted-1-auc.md").read_text()
    assert table in week and table in text and "old numbers" not in text
    assert text.startswith("# Mine\n\nbefore\n") and text.endswith("\nafter\n")
    assert text.count(START) == text.count(END) == 1 and "Holm" in text
    assert not list((tmp_path / "out" / "galleries").iterdir()) and not (tmp_path / "out" / "notebooks").exists()
    before = readme.read_text()
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert readme.read_text() == before  # doing it again changes nothing


def test_results_are_not_put_where_nobody_asked_for_them(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    with pytest.raises(InputError, match="there is no file"):
        insert_results([], path)
    path.write_text(f"text\n{END}\n{START}\n")
    with pytest.raises(InputError, match="lacks the lines"):
        insert_results([], path)
    assert path.read_text() == f"text\n{END}\n{START}\n"


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": [1]}, pd.Index([HOSTILE], name="x"))
    write_tables([Section("s", HOSTILE, HOSTILE, (Block("b", HOSTILE, "look", frame=frame),))], tmp_path)
    assert pd.read_csv(tmp_path / "tables.csv")["row"].tolist() == [HOSTILE]
    environments((tmp_path / "tables.tex").read_text())
