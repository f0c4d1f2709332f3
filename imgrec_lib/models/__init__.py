"""The models: one paper a file; `registry` lists them, `build` makes one."""

from imgrec_lib.models.base import ModelCard, Recommender, item_vectors
from imgrec_lib.models.build import build_model, check_needs, network_parameters, parameter_options, resolve_profile
from imgrec_lib.models.registry import CARDS, list_models, model_card, register_model
from imgrec_lib.options import check_calls

__all__ = [
    "CARDS",
    "ModelCard",
    "Recommender",
    "build_model",
    "check_needs",
    "item_vectors",
    "list_models",
    "model_card",
    "network_parameters",
    "parameter_options",
    "register_model",
    "resolve_profile",
]

check_calls(__name__)
