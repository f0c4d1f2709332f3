"""Evaluation by leave-one-out ranking: metrics from counts, the papers' protocols by name, blocked and exact."""

from imgrec_lib.evaluation.bands import history_bands, popularity_bands
from imgrec_lib.evaluation.evaluate import Evaluation, ValidationAUC, ValidationMetrics, evaluate, user_metrics
from imgrec_lib.evaluation.metrics import check_metric
from imgrec_lib.evaluation.personal import IMPERSONAL, personal_share
from imgrec_lib.evaluation.protocols import PROTOCOLS, EvaluationProtocol, negative_lists
from imgrec_lib.evaluation.ranking import scorer_of
from imgrec_lib.evaluation.top import top_items
from imgrec_lib.options import check_calls

__all__ = [
    "IMPERSONAL",
    "PROTOCOLS",
    "Evaluation",
    "EvaluationProtocol",
    "ValidationAUC",
    "ValidationMetrics",
    "check_metric",
    "evaluate",
    "history_bands",
    "negative_lists",
    "personal_share",
    "popularity_bands",
    "scorer_of",
    "top_items",
    "user_metrics",
]

check_calls(__name__)
