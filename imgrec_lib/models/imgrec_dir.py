"""ImgRec-Dir: the raw image features enter the item embedding directly."""

from __future__ import annotations

from torch import Tensor

from imgrec_lib.data.dataset import TrainingData
from imgrec_lib.models.base import ModelCard, Profile, TrainSettings, look_up
from imgrec_lib.models.parts.imgrec import ImgRec
from imgrec_lib.models.parts.visual import as_multiplied, shared_features


class ImgRecDir(ImgRec):
    """ImgRec with phi_i = f_i, the fixed pooled feature of the item's picture (Elsayed et al. 2022, variant Dir).

    Args:
        data, factors, l2, l2_users, crelu: see `ImgRec`.
    """

    features: Tensor

    def __init__(
        self,
        data: TrainingData,
        *,
        factors: int = 64,
        l2: float = 0.0,
        l2_users: float = 0.0,
        crelu: bool = False,
    ) -> None:
        features = shared_features(data)
        super().__init__(data, features.shape[1], factors=factors, l2=l2, l2_users=l2_users, l2_layer=0.0, crelu=crelu)
        self.register_buffer("features", features, persistent=False)

    def visual(self, items: Tensor) -> Tensor:
        return look_up(as_multiplied(self.features), items)

    def visual_of(self, pixels: Tensor, features: Tensor) -> Tensor:
        return features


SOURCE = "Elsayed, Brinkmeyer, Schmidt-Thieme 2022, End-to-End Image-Based Fashion Recommendation"

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
            (
                TrainSettings(
                    learning_rate=1e-2,
                    batch_size=4096,
                    negatives=4,
                    positives_by="interaction",
                    epochs=300,
                    patience=10,
                ),
            ),
            "tuned by validation AUC on a week of H&M purchases",
        ),
        "paper": Profile(
            {"factors": 20, "l2": 0.1},
            (TrainSettings(learning_rate=1e-4, epochs=150),),
            "the paper's text: K 20, L2 0.1, learning rate 1e-4, until convergence",
        ),
        "code": Profile(
            {"factors": 30},
            (TrainSettings(learning_rate=1e-4, epochs=150, evaluate_every=5, patience=0),),
            "the scripts for Amazon Fashion: K 30, no effective L2",
        ),
        "code-men": Profile(
            {"factors": 20, "crelu": True},
            (TrainSettings(learning_rate=5e-4, batch_size=512, epochs=120, evaluate_every=5, patience=0),),
            "the scripts for Amazon Men: K 20 with CReLU",
        ),
    },
)
