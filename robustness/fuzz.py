"""Coverage-guided fuzzing of the readers of foreign files, with Atheris (libFuzzer).

    python robustness/fuzz.py published --runs 1000000      # the .npy files of DVBPR
    python robustness/fuzz.py interactions --runs 1000000   # CSV files of interactions

It starts from the files in `robustness/seeds/` and looks for an input that ends in anything but a dataset or the one
sentence (`InputError`), or takes longer than ten seconds, or more than 2 GB. Such an input is written to the working
directory; put it into the seeds when the reader is mended. The same seed and number of runs try the same inputs.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import atheris
import numpy as np
import pandas as pd

with atheris.instrument_imports(include=["imgrec_lib.data.readers", "imgrec_lib.data.split"]):
    from imgrec_lib.data import split
    from imgrec_lib.data.readers import dvbpr, table
with atheris.instrument_imports(include=["pickletools"]):
    import pickletools  # noqa: F401

from imgrec_lib.data.images import ImageStore
from imgrec_lib.errors import InputError

SEEDS = Path(__file__).resolve().parent / "seeds"


def published(path: Path) -> None:
    """Read it as a published file, its pictures apart."""
    dvbpr.load_dvbpr(path, image_size=1, progress=False)


def interactions(path: Path) -> None:
    """Read it as interactions, and split them."""
    read = table.read_interactions(path)
    items = pd.DataFrame({"item": read["item"].unique()})
    split.split_dataset("fuzz", read, items, min_interactions=3)


TARGETS: dict[str, tuple[Callable[[Path], None], str]] = {
    "published": (published, "input.npy"),
    "interactions": (interactions, "input.csv"),
}


def no_pictures(name: str, sources: object, ids: list[str], cache: object, **options: object) -> ImageStore:
    """Stands in for the image store, which has its own tests and would take most of the time."""
    return ImageStore.from_array(np.zeros((len(ids), 1, 1, 3), np.uint8))


def main() -> None:
    parser = argparse.ArgumentParser(description="Fuzz a reader.")
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    read, name = TARGETS[arguments.target]
    dvbpr.cached_images = no_pictures  # type: ignore[assignment]  # it takes fewer arguments
    warnings.simplefilter("ignore")
    memory = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(prefix="imgrec-fuzz-", dir=memory) as folder:
        path = Path(folder) / name

        def once(data: bytes) -> None:
            path.write_bytes(data)
            try:
                read(path)
            except InputError as error:
                text = str(error)
                if not text.isprintable() or len(text) > 1100:
                    raise AssertionError(f"no sentence: {text!r}") from error

        found = Path(folder) / "found"
        found.mkdir()
        options = [f"-runs={arguments.runs}", f"-seed={arguments.seed}", "-max_len=4096", "-timeout=10"]
        # A process starts with the peak of the one that started it, which a worker of the tests has raised.
        options += ["-rss_limit_mb=6144", "-print_final_stats=1", "-artifact_prefix=./"]
        # New inputs go to the first folder; libFuzzer ends the process, so nothing is done after it.
        atheris.Setup([sys.argv[0], *options, str(found), str(SEEDS / arguments.target)], once)
        atheris.Fuzz()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
