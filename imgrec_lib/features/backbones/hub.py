"""Repositories of the Hugging Face hub: from its cache where they are there, else downloaded."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from imgrec_lib.errors import InputError, one_line

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
ANY_WEIGHTS = ("model.safetensors", "open_clip_model.safetensors", "open_clip_pytorch_model.safetensors")
PICKLED = ("pytorch_model.bin", "open_clip_pytorch_model.bin")
"""PyTorch files: read by `read_weights`, which runs no code, or not at all."""


def repository(name: str, wanted: Sequence[str], others: Sequence[str] = ()) -> Path:
    """The folder that holds a repository's files.

    Args:
        name: "owner/model".
        wanted: names of files, of which one must be there.
        others: patterns of further files to fetch.

    Raises:
        InputError: there is no such repository, it has none of the wanted files, or the hub cannot be reached.
    """
    from huggingface_hub import snapshot_download

    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise InputError(f"{name!r} is no name of a model on the hub: write <owner>/<model>.")
    patterns = [*wanted, *others]
    for local in (True, False):
        try:
            folder = Path(snapshot_download(name, allow_patterns=patterns, local_files_only=local))
        except Exception as error:  # the hub's client raises those of its HTTP library too
            if not local:
                raise InputError(
                    f"{name} is not in the hub's cache and could not be downloaded ({_reason(error)}): check the name, "
                    "copy the files of its repository to this machine and name their folder (weights=FOLDER), or use "
                    "the backbone 'efficientnet-lite0', whose weights are installed."
                ) from None
            continue
        if any((folder / file).is_file() for file in wanted):
            return folder
    raise InputError(f"{name} publishes none of {', '.join(wanted)}, which can be read without running code in them.")


def _reason(error: Exception) -> str:
    text = one_line(error)
    return f"{text[:150]}..." if len(text) > 150 else text


def file_in(folder: Path, names: Sequence[str]) -> Path:
    """The first of the named files that a folder holds.

    Raises:
        InputError: it holds none.
    """
    found = next((folder / name for name in names if (folder / name).is_file()), None)
    if found is None:
        raise InputError(f"the folder {folder} holds no weights: one of {', '.join(names)} must be there.")
    return found


def licence_of(folder: Path) -> str:
    """What the model card in a folder states as licence."""
    from huggingface_hub import ModelCard

    try:
        card: Any = ModelCard.load(folder / "README.md")
        stated = card.data.license
    except Exception:  # no card, or none that can be read
        stated = None
    return str(stated) if stated else "not stated"
