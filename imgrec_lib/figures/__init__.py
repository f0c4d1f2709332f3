"""What runs, datasets and models say, drawn: curves, maps and galleries for notebooks and pages."""

from __future__ import annotations

from imgrec_lib.extras import require

require("report")

from imgrec_lib.figures.attributes import attention_by_user, attention_figure, attention_gallery, region_gallery
from imgrec_lib.figures.catalogue import (
    category_agreement,
    category_table,
    feature_map,
    interaction_figure,
    item_gallery,
)
from imgrec_lib.figures.curves import (
    auc_by_history,
    auc_by_popularity,
    cost_vs_quality,
    difference_matrix,
    learning_curves,
    sampled_vs_exact,
    standings_chart,
)
from imgrec_lib.figures.generated import (
    best_pictures,
    design_gallery,
    nearest_items_gallery,
    picture_grid,
    preference_figure,
    progress_grid,
    steps_grid,
)
from imgrec_lib.figures.grid import validation_surface
from imgrec_lib.figures.movement import item_movement, movement_by_popularity, movement_gallery
from imgrec_lib.figures.search import best_so_far, importance, search_curves, slices
from imgrec_lib.options import check_calls

__all__ = [
    "attention_by_user",
    "attention_figure",
    "attention_gallery",
    "auc_by_history",
    "auc_by_popularity",
    "best_pictures",
    "best_so_far",
    "category_agreement",
    "category_table",
    "cost_vs_quality",
    "design_gallery",
    "difference_matrix",
    "feature_map",
    "importance",
    "interaction_figure",
    "item_gallery",
    "item_movement",
    "learning_curves",
    "movement_by_popularity",
    "movement_gallery",
    "nearest_items_gallery",
    "picture_grid",
    "preference_figure",
    "progress_grid",
    "region_gallery",
    "sampled_vs_exact",
    "search_curves",
    "slices",
    "standings_chart",
    "steps_grid",
    "validation_surface",
]

check_calls(__name__)
