"""ImgRec-FT: a trained ReLU layer compacts the image features before they enter the item embedding."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from imgrec_lib.data.dataset import TrainingData
from imgrec_lib.models.base import ModelCard, Profile, Range, look_up
from imgrec_lib.models.parts.imgrec import CODE, CODE_MEN, PAPER, SOURCE, ImgRec
from imgrec_lib.models.parts.layers import feature_layer
from imgrec_lib.models.parts.settings import LARGE_BATCHES
from imgrec_lib.models.parts.visual import as_multiplied, shared_features
from imgrec_lib.options import Count, NotNegative


class ImgRecFT(ImgRec):
    """ImgRec with phi_i = ReLU(W_phi f_i + b_phi), a trained layer of 150 units (Elsayed et al. 2022, variant FT).

    Args:
        data, loss, factors, l2, l2_users, l2_layer, crelu: see `ImgRec`.
        units: width of the layer.
    """

    features: Tensor

    def __init__(
        self,
        data: TrainingData,
        *,
        loss: str = "bce",
        factors: Count = 64,
        units: Count = 150,
        l2: NotNegative = 0.0,
        l2_users: NotNegative = 0.0,
        l2_layer: NotNegative = 0.0,
        crelu: bool = False,
    ) -> None:
        features = shared_features(data)
        super().__init__(
            data, units, loss=loss, factors=factors, l2=l2, l2_users=l2_users, l2_layer=l2_layer, crelu=crelu
        )
        self.register_buffer("features", features, persistent=False)
        self.layer = feature_layer(features.shape[1], units)

    def visual(self, items: Tensor) -> Tensor:
        return torch.relu(self.layer(look_up(as_multiplied(self.features), items)))

    def visual_of(self, pixels: Tensor, features: Tensor) -> Tensor:
        return torch.relu(self.layer(features))

    def layer_kernels(self) -> list[Tensor]:
        return [self.layer.weight]


CARD = ModelCard(
    name="imgrec-ft",
    title="ImgRec-FT",
    family="visual",
    needs=frozenset({"features"}),
    source=SOURCE,
    fidelity="faithful",
    build=ImgRecFT,
    profiles={
        "default": Profile(
            {"factors": 64, "l2_users": 1e-6},
            (replace(LARGE_BATCHES, learning_rate=1e-2, batch_size=16384),),
            "tuned by validation AUC on a week of H&M purchases",
        ),
        "paper": Profile(
            {"factors": 20},
            (PAPER,),
            "the paper's text: K 20, 150 units, learning rate 1e-4, until convergence; without the printed L2 of 0.1, "
            "which never reached the loss of the authors' scripts (see `literal`)",
        ),
        "literal": Profile(
            {"factors": 20, "l2": 0.1, "l2_layer": 0.1},
            (PAPER,),
            "the paper's text to the letter, its L2 of 0.1 really applied: a warning, no baseline, for it shrinks the "
            "users' table to nothing and everybody gets the same ranking",
        ),
        "code": Profile(
            {"factors": 30},
            (CODE,),
            "the scripts for Amazon Fashion: K 30, 150 units, no effective L2; the weights of the last epoch",
        ),
        "code-men": Profile(
            {"factors": 20, "crelu": True},
            (CODE_MEN,),
            "the scripts for Amazon Men: K 20 with CReLU, 150 units, no effective L2; the weights of the last epoch",
        ),
    },
    space={
        "factors": [32, 64, 128],
        "learning_rate": Range(1e-3, 3e-2, log=True),
        "l2_users": Range(1e-8, 1e-3, log=True),
        "l2_layer": [0.0, 1e-6, 1e-5, 1e-4],
    },
)
