"""ImgRec-Dir: the raw image features enter the item embedding directly."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from imgrec_lib.data.dataset import TrainingData
from imgrec_lib.models.base import ModelCard, Profile, Range, look_up
from imgrec_lib.models.parts.imgrec import CODE, CODE_MEN, PAPER, SOURCE, ImgRec
from imgrec_lib.models.parts.settings import LARGE_BATCHES
from imgrec_lib.models.parts.visual import as_multiplied, shared_features
from imgrec_lib.options import Count, NotNegative


class ImgRecDir(ImgRec):
    """ImgRec with phi_i = f_i, the fixed pooled feature of the item's picture (Elsayed et al. 2022, variant Dir).

    Args:
        data, loss, factors, l2, l2_users, crelu: see `ImgRec`.
    """

    features: Tensor

    def __init__(
        self,
        data: TrainingData,
        *,
        loss: str = "bce",
        factors: Count = 64,
        l2: NotNegative = 0.0,
        l2_users: NotNegative = 0.0,
        crelu: bool = False,
    ) -> None:
        features = shared_features(data)
        super().__init__(
            data,
            features.shape[1],
            loss=loss,
            factors=factors,
            l2=l2,
            l2_users=l2_users,
            l2_layer=0.0,
            crelu=crelu,
        )
        self.register_buffer("features", features, persistent=False)

    def visual(self, items: Tensor) -> Tensor:
        return look_up(as_multiplied(self.features), items)

    def visual_of(self, pixels: Tensor, features: Tensor) -> Tensor:
        return features


CARD = ModelCard(
    name="imgrec-dir",
    title="ImgRec-Dir",
    family="visual",
    needs=frozenset({"features"}),
    source=SOURCE,
    fidelity="faithful",
    build=ImgRecDir,
    profiles={
        "default": Profile(
            {"factors": 32, "l2": 1e-7, "l2_users": 1e-5},
            (replace(LARGE_BATCHES, learning_rate=1e-2, batch_size=4096),),
            "tuned by validation AUC on a week of H&M purchases",
        ),
        "paper": Profile(
            {"factors": 20},
            (PAPER,),
            "the paper's text: K 20, learning rate 1e-4, until convergence; without the printed L2 of 0.1, which "
            "never reached the loss of the authors' scripts (see `literal`)",
        ),
        "literal": Profile(
            {"factors": 20, "l2": 0.1},
            (PAPER,),
            "the paper's text to the letter, its L2 of 0.1 really applied: a warning, no baseline, for it shrinks the "
            "users' table to nothing and everybody gets the same ranking",
        ),
        "code": Profile(
            {"factors": 30},
            (CODE,),
            "the scripts for Amazon Fashion: K 30, no effective L2; the weights of the last epoch",
        ),
        "code-men": Profile(
            {"factors": 20, "crelu": True},
            (CODE_MEN,),
            "the scripts for Amazon Men: K 20 with CReLU, no effective L2; the weights of the last epoch",
        ),
    },
    space={
        "factors": [32, 64, 128],
        "learning_rate": Range(1e-3, 3e-2, log=True),
        "l2": Range(1e-8, 1e-4, log=True),
        "l2_users": Range(1e-8, 1e-3, log=True),
    },
)
