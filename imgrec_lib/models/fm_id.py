"""FM-ID: the factorisation machine over user id and item id, trained pairwise."""

from __future__ import annotations

from imgrec_lib.data.dataset import TrainingData
from imgrec_lib.models.base import ModelCard, Profile, TrainSettings
from imgrec_lib.models.fm import FactorisationMachine


class FMID(FactorisationMachine):
    """Score: s(u, i) = w_i + <v_u, v_i>, up to what depends on the user alone.

    The same model as BPR-MF with an item bias. Table 2 of Elsayed et al. 2022 lists "FM" among the models without
    pictures and far above BPR-MF, which this model class cannot explain: see `fm-visual` for the other reading.

    Args:
        data, factors, l2, l2_linear, initial_scale: see `FactorisationMachine`.
    """

    def __init__(
        self,
        data: TrainingData,
        *,
        factors: int = 64,
        l2: float = 0.0,
        l2_linear: float = 0.0,
        initial_scale: float = 0.01,
    ) -> None:
        super().__init__(data, factors=factors, l2=l2, l2_linear=l2_linear, initial_scale=initial_scale)


CARD = ModelCard(
    name="fm-id",
    title="FM-ID",
    family="collaborative",
    needs=frozenset(),
    source="Rendle 2010, Factorization Machines; pairwise loss of Rendle et al. 2009",
    fidelity="faithful",
    build=FMID,
    profiles={
        "default": Profile(
            {"factors": 64, "l2": 0.1, "l2_linear": 0.01},
            (
                TrainSettings(
                    learning_rate=1e-2,
                    batch_size=8192,
                    negatives=4,
                    positives_by="interaction",
                    epochs=300,
                    patience=10,
                ),
            ),
            "BPR-MF's settings, for it is the same model; tuned on a week of H&M purchases",
        ),
        "paper": Profile(
            {"factors": 10, "initial_scale": 0.1},
            (TrainSettings(learning_rate=1e-3),),
            "a reconstruction: the published 0.7093 and 0.6654 come without settings or list of fields",
        ),
    },
)
