"""Backbones of Hugging Face transformers: `hf/<owner>/<model>`, image encoders and image-text encoders."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from imgrec_lib.errors import InputError, one_line
from imgrec_lib.extras import require
from imgrec_lib.features.backbones.hub import WEIGHTS, licence_of, repository
from imgrec_lib.features.backbones.spec import BackboneSpec, Opened, Preprocessing, grid_of_tokens
from imgrec_lib.features.backbones.weights import local_weights, random_origin, sha256, with_seed
from imgrec_lib.files import fingerprint

_OTHERS = ("model-*.safetensors", "config.json", "preprocessor_config.json", "tokenizer*", "vocab*", "merges.txt",
           "special_tokens_map.json", "*.model", "README.md")  # fmt: skip
_INTERPOLATION = {2: "bilinear", 3: "bicubic"}  # as Pillow numbers them


def check_name(name: str) -> None:
    """Refuse what cannot name a model on the hub.

    Raises:
        InputError: with the form; or transformers is not installed.
    """
    if len(name.split("/")) != 3 or not all(name.split("/")):
        raise InputError(f"{name!r} is no backbone: write hf/<owner>/<model>.")
    require("hf")


def open_network(name: str, weights: str | Path, size: int | None, seed: int) -> Opened:
    """See `build_backbone`."""
    check_name(name)
    from transformers import AutoConfig, AutoModel

    own = weights in ("default", "random")
    folder = repository(name.removeprefix("hf/"), WEIGHTS, _OTHERS) if own else local_weights(weights)
    if folder is None or not (folder / "config.json").is_file():
        raise InputError(f"{weights} is no folder of a model of transformers: it must hold config.json and weights.")
    safely: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        config = AutoConfig.from_pretrained(folder, **safely)
        if weights == "random":
            network = with_seed(partial(AutoModel.from_config, config, trust_remote_code=False), seed)
            origin, pooler = random_origin(network, seed), True
        else:
            with _silent():
                network, loading = AutoModel.from_pretrained(
                    folder, use_safetensors=True, dtype="float32", output_loading_info=True, **safely
                )
            missing = {key for key in loading["missing_keys"] if not key.startswith("pooler.")}
            if missing:
                raise InputError(f"the weights in {folder} lack {min(missing)!r} ({len(missing)} such entries).")
            pooler = not loading["missing_keys"]
            digests = [sha256(path) for path in sorted(folder.glob("*.safetensors"))]
            digest = digests[0][:16] if len(digests) == 1 else fingerprint(digests)
            origin = {"weights": name.removeprefix("hf/") if own else folder.name, "weights_sha256": digest}
    except InputError:
        raise
    except Exception as error:  # transformers raises nearly anything on what it cannot read
        raise InputError(
            f"the model in {folder} cannot be opened ({one_line(error)[:300]}): it must be one that transformers "
            "knows, with weights as safetensors."
        ) from None
    both = hasattr(network, "get_image_features")
    if not both and network.main_input_name != "pixel_values":
        raise InputError(f"{name} reads no pictures: name an image encoder, or one of pictures and text.")
    spec = _spec(name, folder, config)
    size = size or spec.size
    call: Any = network.get_image_features if both else network.forward
    interpolate = size != spec.size and "interpolate_pos_encoding" in inspect.signature(call).parameters
    options = {"interpolate_pos_encoding": True} if interpolate else {}
    return Opened(
        spec,
        network,
        size,
        origin,
        features=partial(_features, both, pooler, options),
        maps=partial(_maps, options),
        texts=partial(_texts, folder) if both else None,
    )


@contextmanager
def _silent() -> Iterator[None]:
    """Without the progress bar and the table of what was loaded, which is checked here."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _spec(name: str, folder: Path, config: Any) -> BackboneSpec:
    try:
        read = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        read = {}
    stated = getattr(getattr(config, "vision_config", config), "image_size", None)
    inner = _side(read.get("crop_size")) if read.get("do_center_crop") else None
    outer = _side(read.get("size"))
    size = inner or outer or _side(stated) or 224
    normalises = read.get("do_normalize", True)
    return BackboneSpec(
        name=name,
        size=size,
        preprocessing=Preprocessing.published(
            read.get("image_mean", (0.5,) * 3) if normalises else (0.0,) * 3,
            read.get("image_std", (0.5,) * 3) if normalises else (1.0,) * 3,
            _INTERPOLATION.get(read.get("resample", 3), "bicubic"),
            min(1.0, size / outer) if outer else float(read.get("crop_pct", 1.0)),
        ),
        pooling="own",
        licence=licence_of(folder),
        source=name.removeprefix("hf/"),
    )


def _side(size: Any) -> int | None:
    """A side of what a configuration calls a size."""
    if isinstance(size, dict):
        size = size.get("shortest_edge", size.get("height"))
    return int(size[0] if isinstance(size, list | tuple) else size) if size else None


def _features(both: bool, pooler: bool, options: dict[str, Any], network: Any, x: Tensor) -> Tensor:
    if both:
        found = network.get_image_features(pixel_values=x, **options)
        return found if isinstance(found, Tensor) else found.pooler_output
    found = network(pixel_values=x, **options)
    pooled = getattr(found, "pooler_output", None)
    if pooled is not None and pooler:
        return pooled.flatten(1)
    last = found.last_hidden_state
    return last[:, 0] if last.ndim == 3 else last.mean((2, 3))


def _maps(options: dict[str, Any], network: Any, x: Tensor) -> Tensor:
    tower: nn.Module = getattr(network, "vision_model", network)
    last = tower(pixel_values=x, **options).last_hidden_state
    return grid_of_tokens(last) if last.ndim == 3 else last


def _texts(folder: Path, network: Any, sentences: Sequence[str]) -> Tensor:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise InputError(f"the tokenizer in {folder} cannot be opened ({one_line(error)[:300]}).") from None
    # SigLIP was trained on sentences filled up to one length.
    padding = "max_length" if "siglip" in network.config.model_type else True
    tokens = tokenizer(list(sentences), padding=padding, truncation=True, return_tensors="pt").to(network.device)
    known = inspect.signature(network.get_text_features).parameters
    found = network.get_text_features(**{key: value for key, value in tokens.items() if key in known})
    return found if isinstance(found, Tensor) else found.pooler_output
