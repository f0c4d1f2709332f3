"""Time and memory of the readers of published files, on files of two million interactions that are drawn here.

python benchmarks/readers.py            # both readers, each in a process of its own
python benchmarks/readers.py amazon2023 # one of them, in this process
"""

from __future__ import annotations

import gzip
import json
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from imgrec_lib import load_dataset

INTERACTIONS, USERS, ITEMS = 2_000_000, 300_000, 100_000
COVERS = 5_000
"""Covers that are written: decoding them is not what is measured."""


def draw() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Users, items (with a popularity like Zipf's) and seconds of the interactions."""
    rng = np.random.default_rng(0)
    items = (ITEMS * rng.random(INTERACTIONS) ** 3).astype(np.int64)
    return rng.integers(USERS, size=INTERACTIONS), items, 1_600_000_000 + rng.integers(10**8, size=INTERACTIONS)


def write_amazon(folder: Path) -> None:
    users, items, times = draw()
    with gzip.open(folder / "Drawn.csv.gz", "wt", compresslevel=1) as file:
        file.write("user_id,parent_asin,rating,timestamp\n")
        for user, item, second in zip(users.tolist(), items.tolist(), times.tolist(), strict=True):
            file.write(f"AE{user:026d},B{item:09d},5.0,{second * 1000 + 123}\n")
    sizes = {"thumb": "https://m.example/I/t.jpg", "large": "https://m.example/I/l.jpg", "variant": "MAIN"}
    with gzip.open(folder / "meta_Drawn.jsonl.gz", "wt", compresslevel=1) as file:
        for item in range(2 * ITEMS):  # as many again that nobody bought
            record = {"parent_asin": f"B{item:09d}", "title": f"Title {item}", "price": 9.99, "store": "Store",
                      "main_category": "Fashion", "categories": ["Clothing", "Shoes"], "features": ["Soft"] * 5,
                      "description": ["What it is."] * 20, "images": [sizes] * 5}  # fmt: skip
            file.write(json.dumps(record) + "\n")


def write_covers(folder: Path) -> None:
    users, items, times = draw()
    with open(folder / "pairs.csv", "w") as file:
        file.write("item_id,user_id,timestamp\n")
        for user, item, second in zip(users.tolist(), items.tolist(), times.tolist(), strict=True):
            file.write(f"i{item},u{user},{second}\n")
    (folder / "covers").mkdir()
    for item in range(COVERS):
        Image.new("RGB", (16, 16), (item % 255, 0, 0)).save(folder / "covers" / f"i{item}.png")


WRITERS = {"amazon2023": write_amazon, "covers": write_covers}


def measure(reader: str) -> None:
    """Print what one reader takes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # In a process of its own: what writing takes is not what reading takes.
        subprocess.run([sys.executable, __file__, "--write", reader, name], check=True)
        before, cpu = time.perf_counter(), time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = load_dataset(reader, folder, cache=folder / "cache", image_size=16, progress=False)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 if sys.platform == "darwin" else 1024) / 1e3
        print(
            f"{reader}: {INTERACTIONS:,} interactions in {time.perf_counter() - before:.1f} s "
            f"({time.process_time() - cpu:.1f} s of a processor), {peak:.2f} GB at most in the whole process; "
            f"{dataset.n_users:,} users and {dataset.n_items:,} items are left"
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--write"]:
        WRITERS[sys.argv[2]](Path(sys.argv[3]))
    elif len(sys.argv) > 1:
        measure(sys.argv[1])
    else:
        for each in WRITERS:
            subprocess.run([sys.executable, __file__, each], check=True)
