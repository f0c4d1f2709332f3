"""Backbones of timm: `timm/<model>` or `timm/<model>.<weights>`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from imgrec_lib.errors import InputError, one_line, unknown_name
from imgrec_lib.features.backbones.hub import PICKLED, file_in, repository
from imgrec_lib.features.backbones.spec import BackboneSpec, Opened, Preprocessing, grid_of_tokens
from imgrec_lib.features.backbones.weights import (
    checked_origin,
    downloaded,
    find_weights,
    random_origin,
    read_weights,
    with_seed,
)

_FILES = ("model.safetensors", *PICKLED)


def check_name(name: str) -> None:
    """Refuse a name that timm does not know.

    Raises:
        InputError: with the nearest name.
    """
    import timm

    model, _, tag = name.removeprefix("timm/").partition(".")
    if not timm.is_model(model):
        raise unknown_name("backbone", name, [f"timm/{known}" for known in timm.list_models()])
    tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{model}.*")]
    if tag and tag not in tags:
        raise unknown_name(f"weights of timm/{model}", tag, tags)


def open_network(name: str, weights: str | Path, size: int | None, seed: int) -> Opened:
    """See `build_backbone`."""
    import timm

    check_name(name)
    model = name.removeprefix("timm/")
    published = timm.models.get_pretrained_cfg(model)
    config: dict[str, Any] = published.to_dict() if published is not None else {}
    input_size = int(config.get("input_size", (3, 224, 224))[-1])
    spec = BackboneSpec(
        name=name,
        size=input_size,
        preprocessing=Preprocessing.published(
            config.get("mean", (0.5,) * 3),
            config.get("std", (0.5,) * 3),
            config.get("interpolation", "bicubic"),
            config.get("crop_pct", 1.0),
        ),
        pooling="own",
        licence=config.get("license") or "not stated",
        source=config.get("hf_hub_id") or config.get("url") or "timm",
    )
    size = size or input_size
    # Transformers are built for one size; weights for another are adapted by timm.
    sized: dict[str, Any] = {"img_size": size} if config.get("fixed_input_size") and size != input_size else {}
    if weights == "random":
        network = with_seed(partial(timm.create_model, model, num_classes=0, **sized), seed)
        origin = random_origin(network, seed)
    else:
        path = find_weights(name, (), partial(_find, config), weights) if weights != "default" else _find(config, name)
        origin = checked_origin(path, name.partition(".")[2] or name if weights == "default" else "")
        state = read_weights(path)
        # With the classifier that the file has, so that timm asks for every weight.
        classifier = config.get("classifier") or ""
        heads = [classifier] if isinstance(classifier, str) else list(classifier)
        rows = [len(state[f"{head}.weight"]) for head in heads if f"{head}.weight" in state]
        n_classes = rows[0] if rows else 0
        given = {"state_dict": state, "num_classes": n_classes, "label_offset": 0, "custom_load": False}
        try:
            network = timm.create_model(
                model, pretrained=True, num_classes=n_classes, pretrained_cfg_overlay=given, **sized
            )
        except (RuntimeError, KeyError, AttributeError, ValueError, IndexError) as error:
            raise InputError(
                f"the weights file {path} is not of {name} ({one_line(error)[:200]}): name a file of {name}, or the "
                "backbone that the file belongs to."
            ) from None
        classified: Any = network
        classified.reset_classifier(0)
    return Opened(spec, network, size, origin, features=_features, maps=timm_maps)


def _find(config: dict[str, Any], name: str) -> Path:
    hub, url = config.get("hf_hub_id"), config.get("url")
    if hub:
        file = config.get("hf_hub_filename")
        return file_in(repository(str(hub), (file,) if file else _FILES), (file,) if file else _FILES)
    if url:
        return downloaded(str(url), f"the weights of {name}")
    raise InputError(f"timm publishes no weights of {name}: name a weights file (weights=PATH) or weights='random'.")


def _features(network: Any, x: Tensor) -> Tensor:
    found: Tensor = network(x)
    return found


def timm_maps(network: Any, x: Tensor) -> Tensor:
    """The last feature map of a network of timm."""
    found: Tensor = network.forward_features(x)
    if found.ndim == 3:
        return grid_of_tokens(found)
    return found.permute(0, 3, 1, 2) if getattr(network, "output_fmt", "NCHW") == "NHWC" else found
