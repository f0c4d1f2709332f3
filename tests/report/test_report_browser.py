"""The report and the rendered notebooks in a real browser, offline: no request, no fault that axe-core knows."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from browser import axe_violations, chromium, offline_page
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from records import with_cold_items, write_run
from toy import planted_dataset

from imgrec_lib.figures import learning_curves
from imgrec_lib.report import write_report
from imgrec_lib.results import Results
from imgrec_lib.runs import find_runs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with every kind of block, and an executed notebook with every kind of output."""
    root = tmp_path_factory.mktemp("browser")
    shop = with_cold_items(planted_dataset(n_users=60, n_items=70)[0])
    for seed in (0, 1):
        for model in ("poprank", "bpr-mf", "vbpr"):
            write_run(
                root / "runs" / f"{model}-{seed}", shop, model, seed, popularity=model == "poprank",
                epochs=0 if model == "poprank" else 3, oracle=True,
            )  # fmt: skip
        for rate in (0.01, 0.1):
            for factors in (4, 8):
                write_run(
                    root / "runs" / f"grid-{rate}-{factors}-{seed}", shop, "bpr-mf", seed, stage="search", metrics={},
                    parameters={"factors": factors}, phases=[{"learning_rate": rate}], oracle=True,
                )  # fmt: skip
    runs = find_runs(root / "runs")
    data, about = learning_curves(Results.of(runs))._repr_mimebundle_()
    table = runs[0].per_user.head().to_html()
    notebook = new_notebook(
        cells=[
            new_markdown_cell("# Train\n\nA [link](https://example.org) and `code`.\n\n## Result"),
            new_code_cell(
                "from pathlib import Path\nx = 1  # a comment\nprint('text', 2.5)",
                execution_count=1,
                outputs=[
                    new_output("stream", name="stdout", text="a line\n"),
                    new_output("stream", name="stderr", text="a warning\n"),
                    new_output("display_data", data={"text/html": table, "text/plain": "a table"}),
                    new_output("execute_result", data=data, metadata=about, execution_count=1),
                    new_output("error", ename="E", evalue="e", traceback=["\x1b[0;31mValueError\x1b[0m: no"]),
                ],
            ),
        ]
    )
    nbformat.write(notebook, runs[0].folder / "notebook.ipynb")
    write_report(root / "runs", root / "report", progress=False)
    return root / "report"


@pytest.mark.slow
def test_pages_ask_for_nothing_and_show_no_fault(folder: Path) -> None:
    pages = [folder / "index.html", *sorted((folder / "notebooks").glob("*.html"))]
    assert len(pages) == 2
    with chromium() as browser:
        for path in pages:
            for scheme in ("light", "dark"):
                with offline_page(browser, path, scheme) as (page, problems):
                    for details in page.query_selector_all("details"):
                        details.evaluate("element => element.open = true")
                    assert axe_violations(page) == [], (path.name, scheme)
                    assert problems == [], (path.name, scheme)


def test_pages_fit_a_telephone(folder: Path) -> None:
    with chromium() as browser:
        for path in (folder / "index.html", *(folder / "notebooks").glob("*.html")):
            with offline_page(browser, path, width=400) as (page, _):
                assert page.evaluate("document.documentElement.scrollWidth") <= 400, path.name
                # A notebook's figure is not made smaller: it scrolls.
                widths = (
                    "all => all.map(each => [each.getBoundingClientRect().width, Number(each.getAttribute('width'))])"
                )
                assert all(shown == own for shown, own in page.locator(".output > img").evaluate_all(widths))
                assert axe_violations(page) == []


def test_the_answer_stands_first_and_reads_on_a_telephone(folder: Path) -> None:
    with chromium() as browser, offline_page(browser, folder / "index.html", width=400) as (page, _):
        verdict = page.locator("p.verdict").first
        assert verdict.inner_text().startswith("By AUC ") and verdict.bounding_box()["y"] < 200
        drawing = page.locator("figure.plot.narrow svg").first
        assert drawing.bounding_box()["y"] < 900 and not page.locator("figure.plot.wide").first.is_visible()
        sizes = "all => all.filter(each => each.getBoundingClientRect().width).map(each => [each, each.getScreenCTM()])"
        sizes += ".map(([each, seen]) => parseFloat(getComputedStyle(each).fontSize) * Math.hypot(seen.a, seen.b))"
        for part in page.locator("details.part").all():
            part.evaluate("part => part.open = true")
        drawn = page.locator("svg text").evaluate_all(sizes)
        assert len(drawn) > 100 and min(drawn) > 9  # CSS pixels
        # The first column stays when the table is scrolled to its end.
        region = page.get_by_role("region", name="Results")
        region.evaluate("region => region.scrollLeft = region.scrollWidth")
        name = region.locator("tbody th").first
        assert name.bounding_box()["x"] == pytest.approx(region.bounding_box()["x"], abs=1)


def test_tables_are_sorted_by_mouse_and_keyboard(folder: Path) -> None:
    with chromium() as browser, offline_page(browser, folder / "index.html") as (page, problems):
        table = page.get_by_role("region", name="Results").locator("table")

        def column(place: int) -> list[str]:
            cells = table.locator(f"tbody tr > :nth-child({place + 1})").all()
            return [cell.inner_text().split("\n")[0] for cell in cells]

        headings = [heading.inner_text() for heading in table.locator("thead th").all()]
        auc, best_first = headings.index("AUC"), column(0)
        assert column(auc)[:3] == sorted(column(auc)[:3], reverse=True)
        button = table.get_by_role("button", name="HR@10")
        button.focus()
        page.keyboard.press("Enter")
        hits = [float(text) for text in column(headings.index("HR@10"))]
        assert hits == sorted(hits, reverse=True)
        assert table.locator("th[aria-sort]").get_attribute("aria-sort") == "descending"
        page.keyboard.press("Space")
        assert [float(text) for text in column(headings.index("HR@10"))] == sorted(hits)
        assert table.locator("th[aria-sort]").get_attribute("aria-sort") == "ascending"
        table.get_by_role("button", name="model").click()
        assert column(0) == sorted(best_first, key=str.lower)
        last = next(text for text in headings if text.startswith("AUC against"))
        for _ in range(2):  # what has no number stays below, whichever way the others are sorted
            table.get_by_role("button", name=last, exact=True).click()
            numbers = column(headings.index(last))
            assert "—" not in numbers[: len(numbers) - numbers.count("—")]
        assert problems == [] and axe_violations(page) == []


def test_a_printed_page_has_no_heading_alone(folder: Path) -> None:
    with chromium() as browser, offline_page(browser, folder / "index.html", width=718) as (page, _):
        page.emulate_media(media="print")
        assert page.evaluate("document.documentElement.scrollWidth") <= 718  # what A4 holds between its margins
        shown = [heading.inner_text() for heading in page.locator("h2:visible, h3:visible, summary:visible").all()]
        assert shown[1:] == ["AUC of every model", "Results"] and shown[0].startswith("planted")
        page.locator("details.part", has_text="Protocols").first.evaluate("part => part.open = true")
        assert page.get_by_role("heading", name="Exact and sampled AUC").is_visible()


def test_a_number_leads_to_the_executed_notebook(folder: Path) -> None:
    with chromium() as browser, offline_page(browser, folder / "index.html") as (page, _):
        (run,) = (path.stem for path in (folder / "notebooks").glob("*.html"))
        number = page.locator("table a.number").filter(has_text="0.").first
        row = page.locator(number.get_attribute("href"))
        assert not row.is_visible()  # its part is closed until a link leads there
        number.click()
        assert row.locator("th a").first.inner_text() == run
        row.locator("th a").first.click()
        assert page.url.endswith(f"notebooks/{run}.html")
        assert page.locator("img").get_attribute("alt").startswith("Learning curves of 2 trained models")
        assert page.locator("nav a").get_attribute("href") == "../index.html"


def test_the_tests_would_see_a_fault(tmp_path: Path) -> None:
    (tmp_path / "bad.html").write_text(
        "<html><body><img src='https://example.org/a.png'><p style='color: #ccc'>pale text</p></body></html>"
    )
    with chromium() as browser, offline_page(browser, tmp_path / "bad.html") as (page, problems):
        rules = {each.split(" ")[0] for each in axe_violations(page)}
        assert {"image-alt", "color-contrast", "html-has-lang"} <= rules
        assert any("example.org" in problem for problem in problems)
