"""A small image-text encoder with random weights, as OpenCLIP keeps one in a folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn


def small_open_clip(folder: Path, size: int) -> Path:
    """Write the model; the test is skipped, with a reason, where OpenCLIP is not installed.

    Args:
        folder: where; it is there.
        size: the side of its pictures in pixels, a multiple of 16.
    """
    open_clip = pytest.importorskip("open_clip", reason="the extra 'open-clip' is not installed")
    vision = {"image_size": size, "layers": 3, "width": 32, "head_width": 16, "patch_size": 16}
    text = {"context_length": 9, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    config = {
        "model_cfg": {"embed_dim": 20, "vision_cfg": vision, "text_cfg": text},
        "preprocess_cfg": {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4]},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    network = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    nn.init.normal_(network.visual.proj)
    save_file({key: x.contiguous() for key, x in network.state_dict().items()}, folder / "model.safetensors")
    return folder
