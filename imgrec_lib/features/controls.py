"""Controls: a model that does not lose by them has learnt nothing from pictures or words."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from imgrec_lib.errors import unknown_name
from imgrec_lib.features.extraction import Features
from imgrec_lib.files import fingerprint

SHUFFLED_PICTURES, SHUFFLED_FEATURES = "shuffled pictures", "shuffled features"
CONTROLS = (SHUFFLED_PICTURES, SHUFFLED_FEATURES)
"""Both give each item what another one has; the second is the name where features are of words too."""


def check_control(control: str | None) -> None:
    """Refuse a control that there is not.

    Raises:
        InputError: unknown control.
    """
    if control is not None and control not in CONTROLS:
        raise unknown_name("control", control, CONTROLS)


def with_control(features: Features, control: str | None, seed: int = 0) -> Features:
    """The features under a control experiment.

    (Features of an untrained network, the other usual control, are those of `weights="random"`.)

    Args:
        features: the features of a catalogue.
        control: None for none; "shuffled pictures" or "shuffled features": each item gets the features of another one,
            all of its sets those of the same.
        seed: seeds the shuffling.

    Returns:
        The same features, or shuffled ones in memory, whose description and fingerprint say so.

    Raises:
        InputError: unknown control.
    """
    check_control(control)
    if control is None:
        return features
    n_items = len(features.values)
    order = np.random.default_rng(seed).permutation(n_items)
    # Every item takes the picture of the next one in a random ring: none keeps its own.
    source = np.empty(n_items, np.int64)
    source[order] = np.roll(order, 1)
    description = features.description | {"control": control}
    return replace(
        features,
        values=np.asarray(features.values)[source],
        description=description,
        fingerprint=fingerprint(features.fingerprint, control, seed),
    )
