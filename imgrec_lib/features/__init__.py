"""Features of a catalogue: of its pictures by backbones by name, of its words, and vectors that people bring."""

from __future__ import annotations

from imgrec_lib.features.activations import Activations, trunk_activations
from imgrec_lib.features.attributes import AttributeLabels, FeatureMaps, attribute_accuracy, attribute_labels
from imgrec_lib.features.backbones import Backbone, BackboneSpec, build_backbone, list_backbones
from imgrec_lib.features.extraction import Features, extract_features
from imgrec_lib.features.given import read_features
from imgrec_lib.features.item_table import category_features, number_features, text_features
from imgrec_lib.features.sets import item_feature_options, item_features
from imgrec_lib.features.several import picture_features
from imgrec_lib.options import check_calls

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
    "category_features",
    "extract_features",
    "item_feature_options",
    "item_features",
    "list_backbones",
    "number_features",
    "picture_features",
    "read_features",
    "text_features",
    "trunk_activations",
]

check_calls(__name__)
