"""Visual features: backbones by name, and the cached features of a catalogue."""

from __future__ import annotations

from imgrec_lib.features.activations import Activations, trunk_activations
from imgrec_lib.features.backbones import Backbone, BackboneSpec, build_backbone, list_backbones
from imgrec_lib.features.extraction import Features, extract_features

__all__ = [
    "Activations",
    "Backbone",
    "BackboneSpec",
    "Features",
    "build_backbone",
    "extract_features",
    "list_backbones",
    "trunk_activations",
]
