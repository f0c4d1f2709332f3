"""Files of weights: found, checked against their SHA-256, read without running code, loaded whole."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from imgrec_lib.errors import InputError, one_line, unknown_name
from imgrec_lib.features.backbones.hub import ANY_WEIGHTS, PICKLED, file_in
from imgrec_lib.files import plain_path


def find_weights(name: str, published: Sequence[str], find: Callable[[str], Path], weights: str | Path) -> Path:
    """The weights' file.

    Args:
        name: the backbone's.
        published: names of the published weights, the default first.
        find: name of published weights -> their file.
        weights: "default", one of the names, or the path of a file, or of a folder with a file of a usual name.

    Raises:
        InputError: nothing has that name, or no file lies there; or see `find`.
    """
    if weights == "default" and published:
        weights = published[0]
    if weights in published:
        return find(str(weights))
    path = local_weights(weights)
    if path is None:
        raise unknown_name(f"weights of {name}", str(weights), [*published, "random"])
    return file_in(path, (*ANY_WEIGHTS, *PICKLED)) if path.is_dir() else path


def local_weights(weights: str | Path) -> Path | None:
    """The file or folder that is meant; None where no path is.

    Raises:
        InputError: a path, at which nothing lies.
    """
    path = plain_path(weights)
    if path.exists():
        return path
    if path.suffix or len(path.parts) > 1:
        raise InputError(f"there is no weights file {path}: check the path, or leave 'weights' out for the default.")
    return None


def label_of(weights: str | Path, published: Sequence[str]) -> str:
    """What to call weights: their published name, else "" for that of their file."""
    name = published[0] if weights == "default" else str(weights)
    return name if name in published else ""


def downloaded(url: str, what: str) -> Path:
    """A file of published weights, in the cache folder of torch.hub.

    Raises:
        InputError: it is not there, and cannot be downloaded.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path), hash_prefix=named_prefix(path))
        except (OSError, RuntimeError) as error:
            raise InputError(
                f"{what} could not be downloaded ({one_line(error)}): name a weights file on this machine instead "
                "(weights=PATH), or use the backbone 'efficientnet-lite0', whose weights are installed."
            ) from None
    return path


def with_seed(build: Callable[[], nn.Module], seed: int, device: str = "cpu") -> nn.Module:
    """A network with initial weights drawn from a seed; PyTorch's global random stream is left as it was.

    On "meta" it has shapes alone, which takes no time.
    """
    with torch.random.fork_rng(devices=[]), torch.device(device):
        torch.manual_seed(seed)
        return build()


def random_origin(network: nn.Module, seed: int) -> dict[str, str]:
    """What is said of random weights."""
    return {"weights": f"random weights (seed {seed})", "weights_sha256": _sha256_of_weights(network)}


def checked_origin(path: Path, label: str = "") -> dict[str, str]:
    """What is said of a weights file, whose name may promise its SHA-256.

    Raises:
        InputError: the promise is not kept.
    """
    digest = sha256(path)
    check_sha256(path, digest, named_prefix(path) or "", "get the file again, or rename it if that is no hash.")
    return {"weights": label or path.name, "weights_sha256": digest[:16]}


def named_prefix(path: Path) -> str | None:
    """The digits of the SHA-256 that a name like `resnet50-11ad3fa6.pth` promises."""
    match = re.search(r"-([0-9a-f]{8,64})\.[^.]+$", path.name)
    return match[1] if match else None


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sha256_of_weights(network: nn.Module) -> str:
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


def load_weights(network: nn.Module, state: dict[str, Tensor], name: str, classifier: str, path: Path) -> None:
    """Load weights into a network, all of them and nothing else, the classifier aside.

    Args:
        network: with weights, or built on "meta".
        state: the weights by name.
        name: the backbone's.
        classifier: prefix of the entries that are not loaded.
        path: the weights' file.

    Raises:
        InputError: they are another network's.
    """

    def relevant(entries: dict[str, Tensor]) -> dict[str, Tensor]:
        return {
            key: value
            for key, value in entries.items()
            if not key.startswith(classifier) and not key.endswith("num_batches_tracked")
        }

    wanted, given = relevant(network.state_dict()), relevant(state)
    missing, surplus = wanted.keys() - given.keys(), given.keys() - wanted.keys()
    reshaped = {key for key in wanted.keys() & given.keys() if wanted[key].shape != given[key].shape}
    for fault, keys in (("lacks", missing), ("has the unknown entry", surplus), ("has another shape in", reshaped)):
        if keys:
            raise InputError(
                f"the weights file {path} is not of {name}: it {fault} {min(keys)!r} ({len(keys)} such entries); "
                f"name a file of {name}, or the backbone that the file belongs to."
            )
    counters = {k: torch.tensor(0) for k in network.state_dict() if k.endswith("num_batches_tracked")}
    own = network.state_dict()
    values = {key: value.to(own[key].dtype) for key, value in (counters | given).items()}
    # Where there are shapes alone the values take their place; filling them first would import sympy, most of a second.
    network.load_state_dict(values, assign=any(value.is_meta for value in own.values()))
