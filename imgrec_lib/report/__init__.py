"""The report of finished runs: tables, figures, galleries and the page that holds them."""

from __future__ import annotations

from imgrec_lib.gallery.gallery import Cell, Gallery, Row
from imgrec_lib.gallery.views import neighbour_gallery, recommendation_gallery, side_by_side
from imgrec_lib.report.attributes import attention_by_user, attention_figure, attention_gallery, region_gallery
from imgrec_lib.report.catalogue import (
    category_agreement,
    category_table,
    feature_map,
    interaction_figure,
    item_gallery,
)
from imgrec_lib.report.curves import (
    auc_by_history,
    auc_by_popularity,
    cost_vs_quality,
    difference_matrix,
    learning_curves,
    sampled_vs_exact,
)
from imgrec_lib.report.formats import format_table, show_table
from imgrec_lib.report.generated import (
    best_pictures,
    design_gallery,
    nearest_items_gallery,
    picture_grid,
    preference_figure,
    progress_grid,
    steps_grid,
)
from imgrec_lib.report.grid import validation_surface
from imgrec_lib.report.movement import item_movement, movement_by_popularity, movement_gallery
from imgrec_lib.report.notebook_pages import notebook_page
from imgrec_lib.report.page import write_report
from imgrec_lib.results import Results
from imgrec_lib.results.comparison import comparison_note, difference_table
from imgrec_lib.results.paper import paper_tables, sizes_table
from imgrec_lib.results.tables import (
    auc_table,
    caption,
    cold_table,
    cost_table,
    grid_table,
    history_table,
    popularity_table,
    protocol_table,
    ranking_table,
    results_table,
    run_table,
)

__all__ = [
    "Cell",
    "Gallery",
    "Results",
    "Row",
    "attention_by_user",
    "attention_figure",
    "attention_gallery",
    "auc_by_history",
    "auc_by_popularity",
    "auc_table",
    "best_pictures",
    "caption",
    "category_agreement",
    "category_table",
    "cold_table",
    "comparison_note",
    "cost_table",
    "cost_vs_quality",
    "design_gallery",
    "difference_matrix",
    "difference_table",
    "feature_map",
    "format_table",
    "grid_table",
    "history_table",
    "interaction_figure",
    "item_gallery",
    "item_movement",
    "learning_curves",
    "movement_by_popularity",
    "movement_gallery",
    "nearest_items_gallery",
    "neighbour_gallery",
    "notebook_page",
    "paper_tables",
    "picture_grid",
    "popularity_table",
    "preference_figure",
    "progress_grid",
    "protocol_table",
    "ranking_table",
    "recommendation_gallery",
    "region_gallery",
    "results_table",
    "run_table",
    "sampled_vs_exact",
    "show_table",
    "side_by_side",
    "sizes_table",
    "steps_grid",
    "validation_surface",
    "write_report",
]
