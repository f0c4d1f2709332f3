"""Files of weights: found, checked against their SHA-256, read without running code, loaded whole."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from imgrec_lib.errors import InputError, unknown_name
from imgrec_lib.features.backbones.spec import BackboneSpec


def find_weights(spec: BackboneSpec, weights: str | Path) -> tuple[Path, str]:
    """The weights' file and what to call them."""
    name = spec.weights[0] if weights == "default" else str(weights)
    if name in spec.weights:
        return spec.find(name), name
    path = Path(weights).expanduser()
    if path.is_file():
        return path, path.name
    if path.suffix or len(path.parts) > 1:
        raise InputError(f"there is no weights file {path}: check the path, or leave 'weights' out for the default.")
    raise unknown_name(f"weights of {spec.name}", name, [*spec.weights, "random"])


def named_prefix(path: Path) -> str | None:
    """The digits of the SHA-256 that a name like `resnet50-11ad3fa6.pth` promises."""
    match = re.search(r"-([0-9a-f]{8,64})\.[^.]+$", path.name)
    return match[1] if match else None


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_weights(network: nn.Module) -> str:
    """16 hexadecimal digits of the SHA-256 of a network's parameters, in their order."""
    digest = hashlib.sha256()
    for parameter in network.parameters():
        digest.update(parameter.detach().numpy().tobytes())
    return digest.hexdigest()[:16]


def check_sha256(path: Path, digest: str, prefix: str, remedy: str) -> None:
    """Refuse a file whose SHA-256 does not begin as it should.

    Raises:
        InputError: with the remedy.
    """
    if not digest.startswith(prefix):
        raise InputError(
            f"the weights file {path} is damaged or was changed: its SHA-256 begins {digest[:8]}, not {prefix[:8]}; "
            f"{remedy}"
        )


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a weights file, by name; no code in the file is run."""
    try:
        if path.suffix == ".safetensors":
            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise InputError(f"the weights file {path} is no intact safetensors file ({error}): get it again.") from None
    # torch.load raises nearly anything on what is not its own.
    except Exception:
        raise InputError(
            f"the weights file {path} is no PyTorch file of plain tensors: save a state dict into it with torch.save."
        ) from None
    # Training scripts wrap the state dict.
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"the weights file {path} holds no state dict: save `model.state_dict()`.")
    return state


def load_weights(network: nn.Module, state: dict[str, Tensor], spec: BackboneSpec, path: Path) -> None:
    """Load weights into a network that was built on "meta", all of them and nothing else, the classifier aside."""

    def relevant(entries: dict[str, Tensor]) -> dict[str, Tensor]:
        return {
            key: value
            for key, value in entries.items()
            if not key.startswith(spec.classifier) and not key.endswith("num_batches_tracked")
        }

    wanted, given = relevant(network.state_dict()), relevant(state)
    missing, surplus = wanted.keys() - given.keys(), given.keys() - wanted.keys()
    reshaped = {key for key in wanted.keys() & given.keys() if wanted[key].shape != given[key].shape}
    for fault, keys in (("lacks", missing), ("has the unknown entry", surplus), ("has another shape in", reshaped)):
        if keys:
            raise InputError(
                f"the weights file {path} is not of {spec.name}: it {fault} {min(keys)!r} ({len(keys)} such entries); "
                f"name a file of {spec.name}, or the backbone that the file belongs to."
            )
    counters = {k: torch.tensor(0) for k in network.state_dict() if k.endswith("num_batches_tracked")}
    network.to_empty(device="cpu").load_state_dict(counters | given)
