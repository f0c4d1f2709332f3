"""Named sets of features side by side: of pictures, of words, categories and numbers, and of vectors in files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from imgrec_lib.data.dataset import Columns, Dataset
from imgrec_lib.devices import Device
from imgrec_lib.features.extraction import Features
from imgrec_lib.features.given import given_feature_options, read_features
from imgrec_lib.features.item_table import category_features, number_features, text_features
from imgrec_lib.features.preparation import Learnt
from imgrec_lib.features.several import picture_feature_options, picture_features
from imgrec_lib.options import Option, check_options, options_of

PICTURES = "pictures"
"""In place of a file of features: the features of the catalogue's own pictures."""

OF_TABLE: dict[str, Callable[..., Features]] = {
    "text": text_features,
    "categories": category_features,
    "numbers": number_features,
}
"""In place of a file of features: what the item table says."""

OF_THE_CALL = ("device", "progress")
"""Options that do not say what features are."""


def item_features(
    dataset: Dataset,
    sources: Mapping[str, str | Path] | None = None,
    *,
    backbone: str = "efficientnet-lite0",
    weights: str | Path = "default",
    device: Device = "cpu",
    progress: bool = True,
    learnt: Learnt | None = None,
    **options: Any,
) -> Features:
    """The features of a dataset's items: one set, or several by name, one behind the other.

    Args:
        dataset: whose items they are.
        sources: by the name of each set a file of vectors (`read_features`), or "pictures" (`picture_features`), "text"
            (`text_features`), "categories" (`category_features`) or "numbers" (`number_features`). Without any, the
            features are those of the pictures.
        backbone, weights: of the network that looks at pictures.
        device: where networks run.
        progress: whether to show progress bars.
        learnt: see `read_features`.
        options: of those functions, see `item_feature_options`.

    Returns:
        The features. Several sets have different scales: with `unit_length` each weighs the same.

    Raises:
        InputError: see those functions.

    Example:
        >>> from imgrec_lib import item_features, load_dataset
        >>> dataset = load_dataset("wardrobe", n_users=40, n_items=50, image_size=32, progress=False)
        >>> both = item_features(dataset, {"words": "text", "brand": "categories"}, text_components=8, progress=False)
        >>> {name: values.shape[0] for name, values in both.views.items()}
        {'words': 50, 'brand': 50}
    """
    sources = dict(sources or {})
    options = check_options("features", item_feature_options(sources), options, "option")
    call: dict[str, Any] = {"device": device, "progress": progress}

    def given(known: Mapping[str, Option]) -> dict[str, Any]:
        return {name: value for name, value in (options | call).items() if name in known}

    def pictures() -> Features:
        return picture_features(dataset, backbone=backbone, weights=weights, **call, **given(picture_feature_options()))

    if not sources:
        return pictures()
    made: dict[str, Any] = {}
    for name, source in sources.items():
        if source == PICTURES:
            made[name] = pictures()
        elif source in OF_TABLE:
            made[name] = OF_TABLE[str(source)](dataset, **given(options_of(OF_TABLE[str(source)])))
        else:
            made[name] = source
    ids = dataset.items[Columns.ITEM].to_numpy().astype(str)
    return read_features(made, ids, learnt=learnt, **given(given_feature_options()))


def item_feature_options(sources: Mapping[str, str | Path]) -> dict[str, Option]:
    """The options that features of some sources may have, see `item_features`."""
    used = set(map(str, sources.values())) or {PICTURES}
    known = picture_feature_options() if PICTURES in used else {}
    for source in used & OF_TABLE.keys():
        known |= {name: each for name, each in options_of(OF_TABLE[source]).items() if name not in OF_THE_CALL}
    return known | (given_feature_options() if sources else {})
