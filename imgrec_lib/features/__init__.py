"""Visual features: backbones by name, and the cached features of a catalogue."""

from __future__ import annotations

from imgrec_lib.features.activations import Activations, trunk_activations
from imgrec_lib.features.attributes import AttributeLabels, FeatureMaps, attribute_accuracy, attribute_labels
from imgrec_lib.features.backbones import Backbone, BackboneSpec, build_backbone, list_backbones
from imgrec_lib.features.extraction import Features, extract_features, feature_options

__all__ = [
    "Activations",
    "AttributeLabels",
    "Backbone",
    "BackboneSpec",
    "FeatureMaps",
    "Features",
    "attribute_accuracy",
    "attribute_labels",
    "build_backbone",
    "extract_features",
    "feature_options",
    "list_backbones",
    "trunk_activations",
]
