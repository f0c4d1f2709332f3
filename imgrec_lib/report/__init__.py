"""The report of finished runs: tables, figures, galleries and the page that holds them."""

from __future__ import annotations

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
    learning_curves,
    sampled_vs_exact,
)
from imgrec_lib.report.gallery import (
    Cell,
    Gallery,
    Row,
    nearest,
    neighbour_gallery,
    recommendation_gallery,
    side_by_side,
)
from imgrec_lib.report.movement import item_movement, movement_by_popularity, movement_gallery
from imgrec_lib.report.page import write_report
from imgrec_lib.report.tables import (
    auc_table,
    by_dataset,
    caption,
    cold_table,
    cost_table,
    format_table,
    history_table,
    paper_tables,
    popularity_table,
    protocol_table,
    ranking_table,
    run_table,
    show_table,
    sizes_table,
    trials,
)

__all__ = [
    "Cell",
    "Gallery",
    "Row",
    "attention_by_user",
    "attention_figure",
    "attention_gallery",
    "auc_by_history",
    "auc_by_popularity",
    "auc_table",
    "by_dataset",
    "caption",
    "category_agreement",
    "category_table",
    "cold_table",
    "cost_table",
    "cost_vs_quality",
    "feature_map",
    "format_table",
    "history_table",
    "interaction_figure",
    "item_gallery",
    "item_movement",
    "learning_curves",
    "movement_by_popularity",
    "movement_gallery",
    "nearest",
    "neighbour_gallery",
    "paper_tables",
    "popularity_table",
    "protocol_table",
    "ranking_table",
    "recommendation_gallery",
    "region_gallery",
    "run_table",
    "sampled_vs_exact",
    "show_table",
    "side_by_side",
    "sizes_table",
    "trials",
    "write_report",
]
