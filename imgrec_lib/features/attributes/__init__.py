"""An attribute network: what a picture shows of each attribute, and where it shows it.

One linear head for each attribute (colour, pattern, garment group, ...) stands on the averaged last feature map of a
backbone. Because the heads are linear and the average is too, a class's logit is the average of a map that is known in
closed form, its class activation map (Zhou et al. 2016). Where that map is strong lies the attribute's region; the
feature map averaged over the region is the attribute's own visual feature.
"""

from imgrec_lib.features.attributes.heads import Heads, fit_heads, train_heads
from imgrec_lib.features.attributes.labels import AttributeLabels, attribute_accuracy, attribute_labels, held_out_items
from imgrec_lib.features.attributes.maps import FeatureMaps
from imgrec_lib.features.attributes.regions import (
    Regions,
    activation_maps,
    boxes_from_maps,
    find_regions,
    region_features,
    strong_part,
)
from imgrec_lib.options import check_calls

__all__ = [
    "AttributeLabels",
    "FeatureMaps",
    "Heads",
    "Regions",
    "activation_maps",
    "attribute_accuracy",
    "attribute_labels",
    "boxes_from_maps",
    "find_regions",
    "fit_heads",
    "held_out_items",
    "region_features",
    "strong_part",
    "train_heads",
]

check_calls(__name__)
