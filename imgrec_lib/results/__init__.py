"""What finished runs say, as numbers: trials, comparisons, tables. No pixel is drawn here."""

from __future__ import annotations

from imgrec_lib.options import check_calls
from imgrec_lib.results.comparison import comparison_note, difference_table
from imgrec_lib.results.paper import paper_tables, sizes_table
from imgrec_lib.results.results import Results
from imgrec_lib.results.standings import Standings
from imgrec_lib.results.tables import (
    auc_table,
    caption,
    cautions,
    cold_table,
    cost_table,
    history_table,
    lists_table,
    metrics_table,
    popularity_table,
    protocol_table,
    ranking_table,
    results_table,
    run_table,
    search_table,
    variants_table,
)

__all__ = [
    "Results",
    "Standings",
    "auc_table",
    "caption",
    "cautions",
    "cold_table",
    "comparison_note",
    "cost_table",
    "difference_table",
    "history_table",
    "lists_table",
    "metrics_table",
    "paper_tables",
    "popularity_table",
    "protocol_table",
    "ranking_table",
    "results_table",
    "run_table",
    "search_table",
    "sizes_table",
    "variants_table",
]

check_calls(__name__)
