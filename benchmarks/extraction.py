"""The rate of feature extraction beside that of a bare forward pass of the same network in the same batches.

    python benchmarks/extraction.py --backbone timm/resnet18 --pictures 64

Both run one after the other, `--repeats` times; the best of each counts. The bare pass has its input ready: nothing is
read, resized, normalised, checked or written.
"""

from __future__ import annotations

import argparse
import tempfile
import time

import numpy as np
import torch

from imgrec_lib.data.images import ImageStore
from imgrec_lib.features import build_backbone, extract_features


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--backbone", default="efficientnet-lite0")
    parser.add_argument("--weights", default="default")
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()

    network = build_backbone(asked.backbone, weights=asked.weights)
    shape = (asked.pictures, network.size, network.size, 3)
    images = ImageStore.from_array(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    x = network.preprocess(torch.from_numpy(np.array(images.pixels[: asked.batch_size])))
    bare, extracted = [], []
    for _ in range(asked.repeats):
        start = time.perf_counter()
        with torch.inference_mode():
            for _ in range(0, asked.pictures, asked.batch_size):
                network.features(x)
        bare.append(time.perf_counter() - start)
        with tempfile.TemporaryDirectory() as cache:
            start = time.perf_counter()
            extract_features(
                images,
                backbone=asked.backbone,
                weights=asked.weights,
                batch_size=asked.batch_size,
                cache=cache,
                progress=False,
            )
            opened = time.perf_counter()
            build_backbone(asked.backbone, weights=asked.weights)
            extracted.append(opened - start - (time.perf_counter() - opened))
    print(f"{asked.backbone} at {network.size} px, {asked.pictures} pictures, {torch.get_num_threads()} threads")
    for name, seconds in (("bare forward pass", bare), ("extract_features, network opened", extracted)):
        print(f"  {name:32} {asked.pictures / min(seconds):8.1f} pictures a second")
    print(f"  ratio {min(bare) / min(extracted):.3f}")


if __name__ == "__main__":
    main()
