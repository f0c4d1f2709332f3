"""Checkpoints: one safetensors file, tensors named `<group>.<name>`, with a JSON header. Nothing is ever unpickled.

The header's metadata holds `identity` (what was trained) and `progress` (where training stood, JSON).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from imgrec_lib.devices import Device
from imgrec_lib.errors import InputError
from imgrec_lib.files import no_room, replacing


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory.

    Attributes:
        tensors: by `<group>.<name>`.
        progress: the JSON object that was saved beside them.
    """

    tensors: dict[str, Tensor]
    progress: dict[str, Any]

    def group(self, name: str) -> dict[str, Tensor]:
        """The tensors of one group, by the rest of their names."""
        prefix = f"{name}."
        return {key.removeprefix(prefix): value for key, value in self.tensors.items() if key.startswith(prefix)}


def write_checkpoint(path: Path, groups: dict[str, dict[str, Tensor]], progress: dict[str, Any], identity: str) -> None:
    """Write groups of tensors and their progress to `path`, atomically.

    Raises:
        InputError: there is no room, or the folder cannot be written to.
    """
    tensors = {
        f"{group}.{name}": value.detach().to("cpu", copy=True).contiguous()
        for group, members in groups.items()
        for name, value in members.items()
    }
    with replacing(path) as temporary:
        try:
            save_file(tensors, temporary, {"identity": identity, "progress": json.dumps(progress)})
        except SafetensorError as error:  # safetensors wraps what the operating system refuses in an error of its own
            raise no_room(path, str(error)) from error


def read_checkpoint(path: Path, identity: str | None = None, device: Device = "cpu", group: str = "") -> Checkpoint:
    """Read a checkpoint.

    Args:
        path: the file.
        identity: what the checkpoint must be of; None accepts any.
        device: where the tensors go.
        group: read the tensors of this group alone; empty: all.

    Raises:
        InputError: missing, damaged, or of another identity.
    """
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            metadata = file.metadata() or {}
            names = [name for name in file.keys() if name.startswith(group and f"{group}.")]  # noqa: SIM118 (no mapping)
            tensors = {name: file.get_tensor(name) for name in names}
        progress = json.loads(metadata["progress"])
    except FileNotFoundError:
        raise InputError(f"there is no checkpoint at {path}: train the model first.") from None
    except (SafetensorError, KeyError, json.JSONDecodeError, OSError) as error:
        raise InputError(f"{path} is no readable checkpoint of imgrec ({error}): delete it and train again.") from error
    if identity is not None and metadata.get("identity") != identity:
        raise InputError(
            f"the checkpoint {path} is of {metadata.get('identity')!r}, not of {identity!r}: "
            "choose another folder, or delete it to train anew."
        )
    return Checkpoint(tensors, progress)


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimiser's tensors by name; its numbers are in the settings."""
    state = optimiser.state_dict()["state"]
    return {
        f"{index}.{name}": value
        for index, entry in state.items()
        for name, value in entry.items()
        if isinstance(value, Tensor)
    }


def load_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Give an optimiser the tensors that `optimiser_tensors` took of another with the same settings."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    # A fused optimiser walks through memory: moments must lie as their weights do (channels last), which no file keeps.
    # Those that do so already stay: `RowAdam` has hold of their memory.
    for parameter, entry in optimiser.state.items():
        for name, value in entry.items():
            if value.shape == parameter.shape and value.stride() != parameter.stride():
                entry[name] = torch.empty_like(parameter, requires_grad=False).copy_(value)
