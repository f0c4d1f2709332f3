"""Backbones: the networks that turn pictures into visual features, by name.

Each can be cut in two. The trunk comes before the cut and is never trained: its activations can be computed once and
kept. The tail comes after it and is what end-to-end training (ImgRec-EtE) unfreezes.

The libraries that the networks come from are imported where they are used: importing them takes seconds, which commands
that only list names should not pay.
"""

from imgrec_lib.features.backbones.backbone import Backbone, build_backbone
from imgrec_lib.features.backbones.registry import FAMILIES, check_backbone, list_backbones
from imgrec_lib.features.backbones.resnet50 import KERAS_CUT, KERAS_LAYERS
from imgrec_lib.features.backbones.spec import BackboneSpec, Preprocessing
from imgrec_lib.options import check_calls

__all__ = [
    "FAMILIES",
    "KERAS_CUT",
    "KERAS_LAYERS",
    "Backbone",
    "BackboneSpec",
    "Preprocessing",
    "build_backbone",
    "check_backbone",
    "list_backbones",
]

check_calls(__name__)
