"""Where tensors live: devices by name, and whether this machine has them."""

from __future__ import annotations

from typing import Annotated, Any

import torch

from imgrec_lib.errors import InputError, one_line


def check_device(device: Any) -> None:
    """Refuse a device that PyTorch does not know or this machine does not have.

    Raises:
        InputError: with the remedy.
    """
    try:
        kind = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise InputError(f"unknown device {str(device)!r} ({one_line(error)}): write cpu, cuda or cuda:1.") from None
    if kind.type == "cuda" and (kind.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"device {str(device)!r} is not there (PyTorch sees {torch.cuda.device_count()} CUDA devices): choose cpu, "
            "or install a PyTorch that fits the machine's driver."
        )
    if kind.type not in ("cpu", "cuda") and not (kind.type == "mps" and torch.backends.mps.is_available()):
        raise InputError(f"device {str(device)!r} is not there, or none that imgrec computes on: choose cpu or cuda.")


Device = Annotated[str | torch.device, check_device]
"""A device that this machine has: "cpu", "cuda", "cuda:1", "mps", or PyTorch's own object."""

DeviceName = Annotated[str, check_device]
"""The same as a text, which a record can hold."""
