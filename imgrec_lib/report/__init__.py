"""The report of finished runs: tables, figures and galleries on one page, and as files."""

from __future__ import annotations

from imgrec_lib.extras import require

require("report")

from imgrec_lib.options import check_calls
from imgrec_lib.report.formats import format_table, markdown_table, show_table
from imgrec_lib.report.notebook_pages import notebook_page
from imgrec_lib.report.page import write_report

__all__ = [
    "format_table",
    "markdown_table",
    "notebook_page",
    "show_table",
    "write_report",
]

check_calls(__name__)
