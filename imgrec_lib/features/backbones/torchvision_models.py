"""Backbones of torchvision: `torchvision/<model>`."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from imgrec_lib.errors import unknown_name
from imgrec_lib.features.backbones.spec import BackboneSpec, Opened, Preprocessing, grid_of_tokens, observed
from imgrec_lib.features.backbones.weights import (
    checked_origin,
    downloaded,
    find_weights,
    label_of,
    load_weights,
    random_origin,
    read_weights,
    with_seed,
)


def check_name(name: str) -> None:
    """Refuse a name that torchvision does not know.

    Raises:
        InputError: with the nearest name.
    """
    from torchvision import models

    known = models.list_models(module=models)
    if name.removeprefix("torchvision/") not in known:
        raise unknown_name("backbone", name, [f"torchvision/{each}" for each in known])


def open_network(name: str, weights: str | Path, size: int | None, seed: int) -> Opened:
    """See `build_backbone`."""
    from torchvision import models

    check_name(name)
    model = name.removeprefix("torchvision/")
    kinds: Any = models.get_model_weights(model)
    published = {kind.name: kind for kind in [kinds.DEFAULT, *kinds]}
    chosen = published.get(str(weights), kinds.DEFAULT)
    preset = chosen.transforms()
    input_size = int(preset.crop_size[0])
    spec = BackboneSpec(
        name=name,
        size=input_size,
        preprocessing=Preprocessing.published(
            preset.mean, preset.std, preset.interpolation.value, input_size / preset.resize_size[0]
        ),
        pooling="own",
        licence=chosen.meta.get("license", "BSD-3-Clause (torchvision); of the weights not stated"),
        source=chosen.meta.get("recipe", chosen.url),
        weights=tuple(published),
    )
    size = size or input_size
    sized = {"image_size": size} if model.startswith("vit_") else {}
    network = with_seed(partial(models.get_model, model, weights=None, **sized), seed)
    # The classifier's last layer; what it takes is the feature.
    classifier = [place for place, module in network.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)][-1]
    network.set_submodule(classifier, nn.Identity())
    if weights == "random":
        origin = random_origin(network, seed)
    else:
        path = find_weights(
            name, spec.weights, lambda of: downloaded(published[of].url, f"the weights {of} of {name}"), weights
        )
        origin = checked_origin(path, label_of(weights, spec.weights))
        load_weights(network, _renamed(read_weights(path)), name, f"{classifier}.", path)
    maps = _maps if hasattr(network, "avgpool") or hasattr(network, "encoder") else None
    return Opened(spec, network, size, origin, features=_features, maps=maps)


def _renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """DenseNet's published files number the parts of a layer, `norm.1`, which are now called `norm1`."""
    return {re.sub(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)", r"\1\2", key): x for key, x in state.items()}


def _features(network: Any, x: Tensor) -> Tensor:
    found: Tensor = network(x)
    return found.flatten(1)


def _maps(network: Any, x: Tensor) -> Tensor:
    """What the network averages, or of a transformer the tokens of the patches."""
    if hasattr(network, "encoder"):
        return grid_of_tokens(observed(network.encoder, lambda: network(x))[1])
    found: Tensor = observed(network.avgpool, lambda: network(x))[0][0]
    return found
