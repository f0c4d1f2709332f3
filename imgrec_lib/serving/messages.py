"""Messages between a server and its workers: a line of JSON's length, the JSON, and bytes that belong to it."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

HEADER = struct.Struct(">II")
"""Lengths of the JSON and of the bytes behind it."""


def packed(content: Mapping[str, Any], extra: bytes = b"") -> bytes:
    """A message."""
    text = json.dumps(content, allow_nan=False).encode()
    return HEADER.pack(len(text), len(extra)) + text + extra
