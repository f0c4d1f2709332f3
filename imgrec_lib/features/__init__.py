"""Visual features: backbones by name, and the cached features of a catalogue."""

from __future__ import annotations

from imgrec_lib.features.activations import Activations, trunk_activations
from imgrec_lib.features.attributes import AttributeLabels, FeatureMaps, attribute_accuracy, attribute_labels
from imgrec_lib.features.backbones import Backbone, BackboneSpec, build_backbone, list_backbones
from imgrec_lib.features.extraction import Features, extract_features
from imgrec_lib.features.given import given_feature_options, read_features
from imgrec_lib.features.several import picture_feature_options, picture_features

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
    "given_feature_options",
    "list_backbones",
    "picture_feature_options",
    "picture_features",
    "read_features",
    "trunk_activations",
]
