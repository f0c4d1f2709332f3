"""Which backbones there are."""

from __future__ import annotations

from imgrec_lib.errors import unknown_name
from imgrec_lib.features.backbones.lite0 import LITE0_CUT, build_lite0, find_lite0, lite0_tail, lite0_trunk
from imgrec_lib.features.backbones.resnet50 import (
    RESNET50_TRAINABLE,
    build_resnet50,
    find_resnet50,
    resnet50_tail,
    resnet50_trunk,
)
from imgrec_lib.features.backbones.spec import BackboneSpec

BACKBONES = {
    spec.name: spec
    for spec in (
        BackboneSpec(
            name="efficientnet-lite0",
            n_features=1280,
            size=224,
            weights=("imagenet",),
            preprocessing="efficientnet-lite",
            pooling="avg",
            licence="Apache-2.0",
            source="Tan and Le 2019, EfficientNet; its Lite variant",
            build=build_lite0,
            find=find_lite0,
            classifier="_fc.",
            trunk=lite0_trunk,
            tail=lite0_tail,
            # The block boundary whose tail is most like ResNet50's in its share of the weights, 73 % (ResNet50: 72 %),
            # and of the convolutions, 13 of 49 (15 of 53). The tail works on the smallest maps alone.
            trainable=(*(f"_blocks.{i}" for i in range(LITE0_CUT, 16)), "_conv_head", "_bn1"),
            channels=192,
            reduction=32,
        ),
        BackboneSpec(
            name="resnet50",
            n_features=2048,
            size=224,
            weights=("IMAGENET1K_V2", "IMAGENET1K_V1"),
            preprocessing="torchvision",
            pooling="avg",
            licence="BSD-3-Clause",
            source="He et al. 2016, Deep residual learning for image recognition",
            build=build_resnet50,
            find=find_resnet50,
            classifier="fc.",
            trunk=resnet50_trunk,
            tail=resnet50_tail,
            # layer3[4].conv2, bn2, conv3, bn3, then layer3[5] and layer4: 15 convolutions, 15 batch norms.
            trainable=RESNET50_TRAINABLE,
            channels=1024,
            reduction=16,
        ),
    )
}


def list_backbones() -> dict[str, BackboneSpec]:
    """All backbones by name, the default first.

    Example:
        >>> from imgrec_lib import list_backbones
        >>> next(iter(list_backbones()))
        'efficientnet-lite0'
    """
    return dict(BACKBONES)


def backbone_spec(name: str) -> BackboneSpec:
    """One backbone.

    Raises:
        InputError: no backbone has that name.
    """
    if name not in BACKBONES:
        raise unknown_name("backbone", name, BACKBONES)
    return BACKBONES[name]
