"""The models: one paper a file; `registry` lists them, `build` makes one."""

from imgrec_lib.models.build import build_model, check_needs, resolve_profile
from imgrec_lib.models.registry import CARDS, list_models, model_card, register_model

__all__ = ["CARDS", "build_model", "check_needs", "list_models", "model_card", "register_model", "resolve_profile"]
