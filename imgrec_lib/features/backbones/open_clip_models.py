"""Backbones of OpenCLIP: `open_clip/<model>/<weights>`, or `open_clip/<owner>/<model>` for one on the hub."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from imgrec_lib.errors import InputError, one_line, unknown_name
from imgrec_lib.extras import require
from imgrec_lib.features.backbones.hub import ANY_WEIGHTS, PICKLED, file_in, licence_of, repository
from imgrec_lib.features.backbones.spec import BackboneSpec, Opened, Preprocessing, grid_of_tokens, observed
from imgrec_lib.features.backbones.timm_models import timm_maps
from imgrec_lib.features.backbones.weights import (
    checked_origin,
    downloaded,
    local_weights,
    random_origin,
    read_weights,
    with_seed,
)

_CONFIG = "open_clip_config.json"
_FILES = (*ANY_WEIGHTS, *PICKLED)
_OTHERS = (_CONFIG, "tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json", "*.model", "README.md")


def check_name(name: str) -> None:
    """Refuse a name that OpenCLIP does not know.

    Raises:
        InputError: with the nearest name; or open_clip is not installed.
    """
    require("open-clip")
    import open_clip

    model, _, tag = name.removeprefix("open_clip/").partition("/")
    if model in open_clip.list_models():
        tags = open_clip.list_pretrained_tags_by_model(model)
        if tag and tag not in tags:
            raise unknown_name(f"weights of open_clip/{model}", tag, tags)
    elif not tag:
        raise unknown_name("backbone", name, [f"open_clip/{known}" for known in open_clip.list_models()])


def open_network(name: str, weights: str | Path, size: int | None, seed: int) -> Opened:
    """See `build_backbone`."""
    check_name(name)
    import open_clip

    model, _, tag = name.removeprefix("open_clip/").partition("/")
    own = weights in ("default", "random")
    given = None if own else local_weights(weights)
    if not own and given is None:
        raise InputError(f"unknown weights {str(weights)!r} of {name}: name a file or folder, or write 'random'.")
    folder = given if given is not None and given.is_dir() else None
    if model not in open_clip.list_models():
        folder = folder or repository(f"{model}/{tag}", _FILES, _OTHERS)
        if not (folder / _CONFIG).is_file():
            raise InputError(f"the folder {folder} has no {_CONFIG}, which says what {name} is.")
    # What says how the network is built: a folder with a configuration, or the name.
    described = f"local-dir:{folder}" if folder is not None and (folder / _CONFIG).is_file() else model
    config: dict[str, Any] = (open_clip.get_pretrained_cfg(model, tag) or {}) if described == model else {}
    sized = {} if size is None else {"force_image_size": size}
    quick = {"force_quick_gelu": True} if config.get("quick_gelu") else {}
    published = {key: config[key] for key in ("mean", "std", "interpolation") if key in config}
    build = partial(
        open_clip.create_model,
        described,
        load_weights=False,
        pretrained_text=False,
        force_preprocess_cfg=published,
        **sized,
        **quick,
    )
    path = None
    if weights != "random":
        path = given if folder is None else file_in(folder, _FILES)
        path = path or _find(name, config)
        origin = checked_origin(path, name.removeprefix("open_clip/") if own else "")
        read_weights(path)  # its sentences, where the file is none that may be read
    try:
        with _silent():
            network = with_seed(build, seed)
        if path is None:
            origin = random_origin(network, seed)
        else:
            open_clip.load_checkpoint(network, str(path), strict=True, weights_only=True)
    except Exception as error:  # OpenCLIP raises many kinds on what does not fit
        raise InputError(
            f"{name} cannot be opened ({one_line(error)[:300]}): check that its weights are of this model."
        ) from None
    shown = open_clip.get_model_preprocess_cfg(network)
    spec = BackboneSpec(
        name=name,
        size=_side(shown["size"]),
        preprocessing=Preprocessing.published(shown["mean"], shown["std"], shown.get("interpolation", "bicubic"), 1.0),
        pooling="own",
        licence=licence_of(folder) if folder is not None else config.get("license", "not stated"),
        source=config.get("hf_hub") or config.get("url") or name.removeprefix("open_clip/"),
    )
    return Opened(
        spec,
        network,
        spec.size,
        origin,
        features=_features,
        maps=_maps if hasattr(network.visual, "trunk") or _map_module(network) is not None else None,
        texts=partial(_texts, described),
    )


@contextmanager
def _silent() -> Iterator[None]:
    """Without OpenCLIP's warnings of a network that gets its weights a moment later."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _find(name: str, config: dict[str, Any]) -> Path:
    if config.get("hf_hub"):
        owner, model, *file = config["hf_hub"].split("/")
        wanted = [f"{Path(each).stem}.safetensors" for each in file if each] + [each for each in file if each]
        return file_in(repository(f"{owner}/{model}", wanted or _FILES), wanted or _FILES)
    if config.get("url"):
        return downloaded(config["url"], f"the weights of {name}")
    raise InputError(f"{name} does not say which weights: write open_clip/<model>/<weights>, or weights=PATH.")


def _side(size: Any) -> int:
    return int(size[0] if isinstance(size, list | tuple) else size)


def _features(network: Any, x: Tensor) -> Tensor:
    found: Tensor = network.encode_image(x)
    return found


def _map_module(network: Any) -> nn.Module | None:
    """The module that gives the last feature map, or the last tokens."""
    visual = network.visual
    return next((getattr(visual, name) for name in ("transformer", "layer4") if hasattr(visual, name)), None)


def _maps(network: Any, x: Tensor) -> Tensor:
    if hasattr(network.visual, "trunk"):
        return timm_maps(network.visual.trunk, x)
    module = _map_module(network)
    assert module is not None
    found: Tensor = observed(module, lambda: network.encode_image(x))[1]
    return grid_of_tokens(found) if found.ndim == 3 else found


def _texts(described: str, network: Any, sentences: Sequence[str]) -> Tensor:
    import open_clip

    try:
        tokenizer = open_clip.get_tokenizer(described)
    except Exception as error:  # some tokenizers come from the hub
        raise InputError(f"the tokenizer of {described} cannot be opened ({one_line(error)[:300]}).") from None
    device = next(network.parameters()).device
    found: Tensor = network.encode_text(tokenizer(list(sentences)).to(device))
    return found
