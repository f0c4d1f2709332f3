"""Trained models in use: lists, scores and vectors by the catalogue's own ids, for known and for new customers."""

from imgrec_lib.options import check_calls
from imgrec_lib.serving.elsewhere import compare_lists, evaluate_lists
from imgrec_lib.serving.export import export_towers
from imgrec_lib.serving.pictures import score_picture, similar_to_picture, with_pictures
from imgrec_lib.serving.trained import Trained, open_trained, recommend, train

__all__ = [
    "Trained",
    "compare_lists",
    "evaluate_lists",
    "export_towers",
    "open_trained",
    "recommend",
    "score_picture",
    "similar_to_picture",
    "train",
    "with_pictures",
]

check_calls(__name__)
