"""Which models there are: a new one is one file with a `CARD`, and one line here.

A package of its own may add models too: by an entry point of the group `imgrec.models` that names a `ModelCard`, which
every process finds, or by `register_model`, for the process that calls it.
"""

from __future__ import annotations

from imgrec_lib.additions import Additions
from imgrec_lib.errors import unknown_name
from imgrec_lib.models import (
    bm3,
    bprmf,
    concars,
    deepstyle,
    dvbpr,
    ease,
    fm,
    fm_visual,
    freedom,
    graphrec,
    group_pop,
    ials,
    imgrec_dir,
    imgrec_ete,
    imgrec_ft,
    item_knn,
    item_knn_visual,
    jrl,
    lightgcn,
    pop_visrank,
    poprank,
    saers,
    two_tower,
    two_tower_ete,
    vbpr,
    visrank,
    warp,
)
from imgrec_lib.models.base import ModelCard

CARDS: tuple[ModelCard, ...] = (
    poprank.CARD,
    group_pop.CARD,
    item_knn.CARD,
    ease.CARD,
    ials.CARD,
    warp.CARD,
    bprmf.CARD,
    lightgcn.CARD,
    fm.CARD,
    fm_visual.CARD,
    visrank.CARD,
    pop_visrank.CARD,
    item_knn_visual.CARD,
    vbpr.CARD,
    deepstyle.CARD,
    jrl.CARD,
    dvbpr.CARD,
    graphrec.CARD,
    freedom.CARD,
    bm3.CARD,
    concars.CARD,
    saers.CARD,
    imgrec_dir.CARD,
    imgrec_ft.CARD,
    imgrec_ete.CARD,
    two_tower.CARD,
    two_tower_ete.CARD,
)


_added: Additions[ModelCard] = Additions("imgrec.models", ModelCard, [card.name for card in CARDS])


def register_model(card: ModelCard) -> None:
    """Add a model for this process; a card of the same name that was added so before is replaced.

    A matrix starts processes of its own: for it, name the card in an entry point of the group `imgrec.models`.

    Raises:
        InputError: the name is taken by a model of imgrec's, or this is no card.

    Example:
        >>> from dataclasses import replace
        >>> from imgrec_lib import list_models, register_model
        >>> register_model(replace(list_models()["bpr-mf"], name="ours", title="Ours"))
        >>> "ours" in list_models()
        True
    """
    _added.register(card)


def list_models() -> dict[str, ModelCard]:
    """All models by name, in the order of the tables; those of other packages come last.

    Raises:
        InputError: an installed package announces a model that cannot be imported, or whose name is taken.

    Example:
        >>> from imgrec_lib import list_models
        >>> card = list_models()["vbpr"]
        >>> card.title, sorted(card.needs)
        ('VBPR', ['features'])
    """
    return {card.name: card for card in CARDS} | _added.by_name()


def model_card(name: str) -> ModelCard:
    """The card of one model.

    Raises:
        InputError: no model has that name.
    """
    models = list_models()
    if name not in models:
        raise unknown_name("model", name, models)
    return models[name]
