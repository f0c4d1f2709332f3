"""A generated shop of H&M's size: what it takes to read it, to train BPR-MF on it, and to evaluate everybody.

    python benchmarks/shop.py FOLDER                  # write it where it is not there, then measure both forms
    python benchmarks/shop.py FOLDER --share 0.01     # a smaller one
    python benchmarks/shop.py FOLDER --only parquet   # the form in parts alone

The purchases have the form of the competition's `transactions_train.csv` (3.5 GB), and once more that of Parquet parts.
Every customer and every article occurs at least once. Popularity and styles are those of `data.Tastes`, the activity of
customers is skewed (half of them make fewer than ten purchases), and one purchase in seven repeats another one of the
same weeks, as at H&M, where 31.8 million purchases are 27.3 million different pairs. There is one picture, of 8 pixels.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from common import peak_bytes
from data import STYLES, Tastes
from PIL import Image

from imgrec_lib import build_model, evaluate, fit, load_dataset
from imgrec_lib.data.dataset import HeldOut
from imgrec_lib.data.readers.hm import ATTRIBUTES
from imgrec_lib.files import replacing_folder

PURCHASES, CUSTOMERS, ARTICLES, DAYS = 31_788_324, 1_362_281, 105_542, 734
"""H&M's competition: rows, customers with a purchase, articles, and days from 20 September 2018 on."""
FIRST_DAY = np.datetime64("2018-09-20")
PARTS = 32
ACTIVITY = 1.3
"""Standard deviation of the logarithm of how active a customer is."""
REPEATED = 0.14
SAMPLED = 20_000
"""Users of the quick evaluation."""


def write(folder: Path, share: float) -> None:
    """Both forms of the shop, `hm/` and `parquet/`, drawn from one seed part by part."""
    purchases, customers, articles = (round(n * share) for n in (PURCHASES, CUSTOMERS, ARTICLES))
    generator = np.random.Generator(np.random.PCG64(20200922))
    style = generator.integers(STYLES, size=articles)
    tastes = Tastes(customers, style, generator)
    numbers = generator.integers(2**63, size=(customers, 4)).tolist()
    customer_ids = pa.array(["".join(f"{number:016x}" for number in four) for four in numbers])
    article_ids = pa.array([f"{108_775 + k // 5:07d}{1 + k % 5:03d}" for k in range(articles)])
    prices = pa.array([f"{price:.16f}" for price in generator.lognormal(-3.7, 0.6, articles)])
    active = np.cumsum(generator.lognormal(sigma=ACTIVITY, size=customers))
    # Everybody and everything occurs once; all else is drawn.
    everybody = np.array_split(generator.permutation(customers), PARTS)
    everything = np.array_split(generator.permutation(articles), PARTS)
    for form in ("hm/images/010", "parquet/interactions"):
        (folder / form).mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(folder / "hm/images/010" / f"{article_ids[0]}.jpg")
    _write_articles(folder / "hm/articles.csv", article_ids.to_pylist(), style)
    (folder / "parquet/items.csv").write_bytes((folder / "hm/articles.csv").read_bytes())
    quoted = pa.csv.WriteOptions(include_header=False, quoting_style="none")
    days = np.linspace(0, DAYS, PARTS + 1).astype(np.int64)
    with open(folder / "hm/transactions_train.csv", "wb") as file:
        file.write(b"t_dat,customer_id,article_id,price,sales_channel_id\n")
        for part, rows in enumerate(np.diff(np.linspace(0, purchases, PARTS + 1).astype(np.int64))):
            who = active.searchsorted(generator.random(rows) * active[-1])
            who[: len(everybody[part])] = everybody[part]
            what = tastes.draw(who)
            what[rows - len(everything[part]) :] = everything[part]
            again = np.flatnonzero(generator.random(rows) < REPEATED)
            again = again[(again >= len(everybody[part])) & (again < rows - len(everything[part]))]
            of = generator.integers(rows, size=len(again))
            who[again], what[again] = who[of], what[of]
            when = np.sort(generator.integers(days[part], days[part + 1], size=rows))
            table = pa.table(
                {
                    "t_dat": pa.array(FIRST_DAY + when),
                    "customer_id": customer_ids.take(pa.array(who)),
                    "article_id": article_ids.take(pa.array(what)),
                    "price": prices.take(pa.array(what)),
                    "sales_channel_id": pa.array(generator.integers(1, 3, size=rows)),
                }
            )
            pa.csv.write_csv(table, file, quoted)
            pa.parquet.write_table(table.drop(["price"]), folder / f"parquet/interactions/part-{part:03d}.parquet")


def _write_articles(path: Path, ids: list[str], style: np.ndarray) -> None:
    with open(path, "w", newline="") as file:
        written = csv.writer(file)
        written.writerow(["article_id", "prod_name", "detail_desc", *ATTRIBUTES])
        for number, (article, own) in enumerate(zip(ids, style.tolist(), strict=True)):
            written.writerow(
                [article, f"Article {number}", f"Drawn, of style {own}.", *(f"{name} {own}" for name in ATTRIBUTES)]
            )


READERS: dict[str, tuple[str, dict[str, Any]]] = {
    "hm": ("hm", {"require_image": False, "image_size": 8}),
    "parquet": ("table", {}),
}
"""By form, its reader and the options."""


@contextmanager
def told(what: str) -> Iterator[list[str]]:
    """Print the seconds of the block, those of the processor, and the most memory of the process so far."""
    facts: list[str] = []
    began, before = time.perf_counter(), time.process_time()
    yield facts
    seconds, busy = time.perf_counter() - began, time.process_time() - before
    peak = peak_bytes() / 1e9
    print(
        f"{what}: {seconds:.1f} s ({busy:.1f} s of a processor), {peak:.2f} GB at most so far; {facts[0]}", flush=True
    )


def measure(folder: Path, form: str, epochs: int) -> None:
    """Print what reading takes, then training, then evaluation."""
    reader, options = READERS[form]
    with warnings.catch_warnings(), told(f"{form}, read") as facts:
        warnings.simplefilter("ignore")
        dataset = load_dataset(reader, folder / form, cache=folder / "cache", progress=False, **options)
        pairs = len(dataset.train) + len(dataset.validation) + len(dataset.test)
        facts.append(f"{pairs:,} different pairs of {dataset.n_users:,} users and {dataset.n_items:,} items are left")
    if not epochs:
        return
    data = dataset.training_data()
    model = build_model("bpr-mf", data, epochs=epochs, patience=0)
    with told(f"{form}, epochs of BPR-MF: {epochs}") as facts:
        curve = fit(model, data, None, progress=False).curve
        facts.append(f"{curve['seconds'].iloc[-1]:.1f} s the last one")
    users = np.random.default_rng(0).permutation(dataset.n_users)
    for n in (SAMPLED, dataset.n_users):
        items = np.full(dataset.n_users, -1)
        items[users[:n]] = dataset.test.items[users[:n]]
        some = replace(dataset, test=HeldOut(items, dataset.test.times))
        with told(f"{form}, exact evaluation") as facts:
            found = evaluate(model, some, protocols=["exact"]).metrics["exact"]
            facts.append(f"{len(some.test):,} users, AUC {found['auc']:.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--share", type=float, default=1.0, help="of H&M's purchases, customers and articles")
    parser.add_argument("--only", choices=READERS, help="one of the two forms")
    parser.add_argument("--epochs", type=int, default=1, help="0 reads alone")
    given = parser.parse_args()
    if not given.folder.exists():
        with replacing_folder(given.folder) as folder:
            write(folder, given.share)
    for form in READERS:
        if given.only == form:
            measure(given.folder, form, given.epochs)
        elif given.only is None:  # in a process of its own: the peak of one is not the other's
            subprocess.run([*sys.orig_argv, "--only", form], check=True)
