"""Evaluation by leave-one-out ranking: metrics from counts, the papers' protocols by name, blocked and exact."""

from imgrec_lib.evaluation.evaluate import (
    Evaluation,
    ValidationAUC,
    ValidationMetrics,
    evaluate,
    history_bands,
    popularity_bands,
    recommend,
    scorer_of,
    user_metrics,
)
from imgrec_lib.evaluation.metrics import check_metric
from imgrec_lib.evaluation.personal import IMPERSONAL, personal_share
from imgrec_lib.evaluation.protocols import PROTOCOLS, EvaluationProtocol, negative_lists

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
    "recommend",
    "scorer_of",
    "user_metrics",
]
