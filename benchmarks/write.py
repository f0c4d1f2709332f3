"""reports/benchmarks.md and its plot, from the answers that benchmarks/run.py has collected."""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Callable, Sequence
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from data import RUNGS, Rung

from imgrec_lib.files import replacing, write_text
from imgrec_lib.report import markdown_table

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.ticker import NullFormatter

FEATURES, UNITS = 2048, 150
FACTORS = 64
TOLERANCE = 0.005
"""How far below the lower of two best AUCs the common target lies: a curve's last thousandths are noise."""

Record = dict[str, Any]


class Answers:
    """The records, to be asked."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.records = records

    def of(self, name: str, rung: str, **options: Any) -> list[dict[str, Any]]:
        """All rounds' answers to a measurement, failures left out."""
        wanted = {f"--{key}": str(value) for key, value in options.items()}
        return [
            r["result"] for r in self.records
            if r["name"] == name and r["rung"] == rung and wanted.items() <= r["options"].items()
            and "failed" not in r["result"]
        ]  # fmt: skip

    def best(self, name: str, rung: str, key: str, choose: Callable[..., float] = max, **options: Any) -> float | None:
        values = [answer[key] for answer in self.of(name, rung, **options)]
        return choose(values) if values else None

    def failures(self) -> dict[str, str]:
        return {r["name"]: r["result"]["failed"] for r in self.records if "failed" in r["result"]}

    def versions(self) -> dict[str, str]:
        """Of all that took part; ours first."""
        found: dict[str, set[str]] = {}
        for record in self.records:
            for package, number in record["result"].get("versions", {}).items():
                if number != "missing":
                    found.setdefault(package, set()).add(number)
        return {package: " and ".join(sorted(numbers)) for package, numbers in sorted(found.items())}


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table; numbers are rounded to three digits, None is a dash."""
    return markdown_table(head, [[_cell(value) for value in row] for row in rows]).rstrip()


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        if not np.isfinite(value):
            return "never"
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def ratio(a: float | None, b: float | None) -> float | None:
    return None if a is None or not b else a / b


def evaluation_section(answers: Answers, rungs: Sequence[Rung]) -> str:
    rows, peer_rows = [], []
    for rung in rungs:
        bare, ours = (answers.best("evaluation", rung.name, key) for key in ("bare", "seconds"))
        memory = answers.best("evaluation-memory", rung.name, "above")
        operations = 2 * rung.n_users * rung.n_items * FACTORS
        rows.append(
            [rung.name, rung.n_users, rung.n_items, bare, ours, ratio(ours, bare), ratio(operations / 1e9, ours),
             None if memory is None else memory / 1e9]
        )  # fmt: skip
        per_user = ratio(ours, rung.n_users)
        row: list[Any] = [rung.name, None if per_user is None else 1e6 * per_user]
        for peer in ("cornac", "lightfm", "recbole"):
            found = answers.of(f"{peer}-evaluation", rung.name)
            theirs = found[0]["seconds"] / found[0]["users"] if found else None
            row += [None if theirs is None else 1e6 * theirs, ratio(theirs, per_user)]
        peer_rows.append(row)
    return "\n\n".join(
        [
            "## Exact evaluation",
            "AUC, HR@10 and NDCG@10 of all users over all items, 64 factors. The floor beside our time is the bare "
            "matrix products in the same tiles, into a tile that is used again and again: no evaluation "
            "by matrix products is faster. Both go in turn over a part of the users at a time, several times over all, "
            "and of each part the fastest time counts.",
            table(
                ["rung", "users", "items", "bare products, s", "imgrec, s", "ratio to the floor", "imgrec, GFLOP/s",
                 "peak memory above the factors, GB"],
                rows,
            ),
            "The peers take one user after the other, so their cost is measured on 500 users and given for a user: "
            "Cornac's `ranking_eval` (AUC, HitRatio@10, NDCG@10), LightFM's `auc_score` (AUC alone), RecBole's "
            "full-sort evaluation (GAUC, Hit@10, NDCG@10). They are timed once, ours is at its best: where the "
            "machine's speed swings, these ratios flatter us by as much.",
            table(
                ["rung", "imgrec, µs a user", "Cornac, µs", "times ours", "LightFM, µs", "times ours", "RecBole, µs",
                 "times ours"],
                peer_rows,
            ),
        ]
    )  # fmt: skip


FLOPS = {"float32": "flops", "bfloat16": "bfloat16 flops"}
"""How a machine's rate is called, by precision."""


def visual_floor(answers: Answers, model: str, rung: Rung, batch: int, precision: str = "float32") -> float | None:
    """Interactions a second if the products with the features were everything and ran at the machine's rate.

    Features are projected for every different item of a batch; forward, and again for the weight's gradient.
    """
    flops = answers.best("machine", LARGEST.name, FLOPS[precision])
    if flops is None:
        return None
    rng = np.random.default_rng(0)
    items = len(np.unique(rng.integers(0, rung.n_items, 2 * batch)))
    rows, width = (items, UNITS) if model == "imgrec-ft" else (min(items, batch), FACTORS // 2 + 1)
    return batch * flops / (2 * 2 * rows * FEATURES * width)


LARGEST = RUNGS["1"]


def visual_section(answers: Answers, rungs: Sequence[Rung], batches: Sequence[int]) -> str:
    rows = []
    for rung, batch, precision in product(rungs, batches, FLOPS):
        theirs = answers.best("cornac-vbpr", rung.name, "rate", batch=batch)
        row: list[Any] = [rung.name, batch, theirs, precision]
        for model in ("vbpr", "imgrec-ft"):
            mine = answers.best(f"{model}-rate", rung.name, "rate", batch=batch, precision=precision)
            row += [mine, ratio(mine, theirs), ratio(mine, visual_floor(answers, model, rung, batch, precision))]
        rows.append(row)
    return "\n\n".join(
        [
            "## Training of visual models",
            "Interactions a second at equal batch, one negative each, 2048 features, 64 latent dimensions (VBPR: 32 "
            "+ 32). The floor is arithmetic: the products with the features of the batch's items, at the rate of a "
            "large product on this machine; a share above 1 means that the items of a batch repeat. Cornac's VBPR "
            "is its own loop (float32, dense Adam; its score broadcasts to a batch x batch matrix, so a larger batch "
            "costs it more). In bfloat16 (`precision=bfloat16`) ours multiply numbers of 8 significant bits, and add "
            "up and update in float32.",
            table(
                ["rung", "batch", "Cornac VBPR, 1/s", "our products in", "VBPR, 1/s", "ratio", "share of the floor",
                 "ImgRec-FT, 1/s", "ratio", "share of the floor"],
                rows,
            ),
        ]
    )  # fmt: skip


def loop_section(answers: Answers, rungs: Sequence[Rung]) -> str:
    rows = []
    for rung in rungs:
        loop, mine = (
            answers.best("scripts-loop", rung.name, "rate"),
            answers.best("imgrec-ft-rate", rung.name, "rate", batch=1024, precision="float32"),
        )
        slow = answers.best("scripts-loop", rung.name, "evaluated")
        fast = answers.best("sampled-evaluation", rung.name, "evaluated")
        rows.append([rung.name, loop, mine, ratio(mine, loop), slow, fast, ratio(fast, slow)])
    return "\n\n".join(
        [
            "## The scripts' own loop",
            "ImgRec-FT as the published scripts go about it, told again in our own words on PyTorch: every example "
            "drawn by itself from a pandas table, every user evaluated by itself against 100 drawn items. Batches "
            "of 1024.",
            table(
                ["rung", "scripts, interactions/s", "imgrec, interactions/s", "ratio", "scripts, users/s evaluated",
                 "imgrec, users/s", "ratio"],
                rows,
            ),
        ]
    )  # fmt: skip


COLLABORATIVE = {
    "imgrec BPR-MF": "bpr-mf-rate",
    "Cornac BPR": "cornac-bpr",
    "RecBole BPR": "recbole-bpr",
    "imgrec FM-ID": "fm-id-rate",
    "RecBole FM": "recbole-fm",
}


def collaborative_section(answers: Answers, rungs: Sequence[Rung]) -> str:
    rows = [[rung.name, *(answers.best(name, rung.name, "rate") for name in COLLABORATIVE.values())] for rung in rungs]
    return "\n\n".join(
        [
            "## Training of models without pictures",
            "Interactions a second, 64 factors, one negative each, batches of 2048. Cornac's BPR is a compiled loop "
            "that updates by example; throughput alone says little across the two ways: see the next table.",
            table(["rung", *COLLABORATIVE], rows),
        ]
    )


def reached(points: Sequence[Sequence[float]], target: float) -> float:
    """Seconds at which a curve reaches the target, between two validations linearly; infinity if it never does."""
    for (t0, a0), (t1, a1) in pairwise(points):
        if a1 >= target:
            return t1 if a1 <= a0 or a0 >= target else t0 + (t1 - t0) * (target - a0) / (a1 - a0)
    return float("inf")


AUC_PAIRS = {
    "BPR-MF and implicit": ("bpr-mf-curve", "implicit-curve"),
    "BPR-MF and LightFM's BPR": ("bpr-mf-curve", "lightfm-bpr-curve"),
    "WARP and LightFM's WARP": ("warp-curve", "lightfm-warp-curve"),
}


def auc_rows(answers: Answers, rungs: Sequence[Rung]) -> list[list[Any]]:
    rows = []
    for title, names in AUC_PAIRS.items():
        for rung in rungs:
            here = [r for r in answers.records if r["rung"] == rung.name and "points" in r["result"]]
            sides = [[record for record in here if record["name"] == name] for name in names]
            if not all(sides):
                continue
            tops = [max(auc for run in side for _, auc in run["result"]["points"]) for side in sides]
            target = min(tops) - TOLERANCE
            chosen = [min(side, key=lambda run: reached(run["result"]["points"], target)) for side in sides]
            seconds = [reached(run["result"]["points"], target) for run in chosen]
            settings = [
                ", ".join(
                    f"{key.removeprefix('--')} {value}"
                    for key, value in run["options"].items()
                    if key not in ("--epochs", "--seconds")
                )
                for run in chosen
            ]
            rows.append([title, rung.name, target, *seconds, seconds[1] / seconds[0], *tops, *settings])
    return rows


def auc_section(answers: Answers, rungs: Sequence[Rung]) -> str:
    return "\n\n".join(
        [
            "## Time to the same validation AUC",
            "Seconds of training, validation excluded, until the exact validation AUC of 1,000 users is within "
            f"{TOLERANCE} of the lower of the two sides' best. Each side has three configurations (in "
            "`benchmarks/run.py`) and is taken at the fastest; curves end when they have not improved for six "
            "validations. Above 1, imgrec is faster. implicit draws negatives among bought items only, by "
            "popularity, which costs it AUC on items that nobody has bought.",
            table(
                ["pair", "rung", "target AUC", "imgrec, s", "peer, s", "peer / imgrec", "best AUC, imgrec",
                 "best AUC, peer",
                 "imgrec's settings", "peer's settings"],
                auc_rows(answers, rungs),
            ),
        ]
    )  # fmt: skip


def memory_section(answers: Answers, rungs: Sequence[Rung]) -> str:
    rows = []
    for rung in rungs:
        seconds = answers.best("start-up", rung.name, "seconds", min)
        peak = answers.best("training-memory", rung.name, "peak")
        cornac = answers.best("cornac-vbpr", rung.name, "peak")
        rows.append(
            [rung.name, rung.n_items * FEATURES * 4 / 1e9, None if peak is None else peak / 1e9,
             None if cornac is None else cornac / 1e9, seconds,
             None if seconds is None else seconds / rung.n_pairs * 1e6]
        )  # fmt: skip
    return "\n\n".join(
        [
            "## Start-up and memory",
            "Peak memory is the largest resident size of the whole process, memory-mapped pages that are in memory "
            "included. ImgRec-FT trains with its default settings (batches of 16,384 with four negatives) and "
            "embeds the catalogue. Start-up opens the files, builds the dataset and the sampler.",
            table(
                ["rung", "features, GB", "ImgRec-FT, peak GB", "Cornac VBPR, peak GB", "start-up, s",
                 "start-up, s a million interactions"],
                rows,
            ),
        ]
    )  # fmt: skip


def row_bytes(model: str, looked_up: dict[str, float], batch: int) -> float:
    """Bytes of table rows that a step cannot do without: rows read, and rows, gradients and moments updated.

    Adam reads a row's weight, gradient and two moments and writes three of them; with the look-up that makes eight
    passes. Adagrad has one moment: six. WARP also reads the trials' rows.
    """
    rows = looked_up["users"] + looked_up["items"]
    passes = 6 if model == "warp" else 8
    updated = looked_up["users"] + 2 * batch if model == "warp" else rows
    return 4 * FACTORS * (passes * updated + (looked_up["pairs"] if model == "warp" else 0))


def profile_section(answers: Answers, rungs: Sequence[Rung], batch: int = 1024) -> str:
    rung, rows = rungs[-1], []
    machine = answers.of("machine", rung.name)
    for model in ("bpr-mf", "warp", "vbpr", "imgrec-ft"):
        found = answers.of(f"{model}-profile", rung.name)
        if not found or not machine:
            continue
        stages, looked_up = found[0]["milliseconds"], found[0]["looked up"]
        visual = visual_floor(answers, model, rung, batch) if model in ("vbpr", "imgrec-ft") else None
        floor = 1000 * row_bytes(model, looked_up, batch) / machine[0]["bandwidth"]
        if visual is not None:
            floor += 1000 * batch / visual
        total = sum(stages.values())
        rows.append([model, *stages.values(), total, floor, total / floor])
    if not rows:
        return ""
    rates = machine[0]
    return "\n\n".join(
        [
            "## Where the time goes",
            f"Milliseconds a step of {batch:,} positives with one negative (WARP: up to ten trials) at rung "
            f"{rung.name}, taken while `fit` runs. \"Idle rows\" moves those that Adam would have moved meanwhile; "
            "the end of an epoch moves all, once. The floor is the arithmetic of the products with features at this "
            f"machine's rate plus the table rows' traffic at its bandwidth: {rates['flops'] / 1e9:,.0f} GFLOP/s "
            f"(product of 2048 x 2048), {rates['bandwidth'] / 1e9:,.1f} GB/s (copy of 256 MB); scattered rows of "
            f"features are gathered at {rates['gather'] / 1e9:,.1f} GB/s.",
            table(["model", *stages, "a step", "floor", "times the floor"], rows),
        ]
    )  # fmt: skip


def neighbours_section(answers: Answers, rungs: Sequence[Rung]) -> str:
    rung = rungs[-1]
    found = answers.of("neighbours", rung.name)
    if not found:
        return ""
    rows = [
        [f"{s['space']}, {'exact' if not s['probes'] else str(s['probes']) + ' probes'}", s["seconds"], s["recall"]]
        for s in found[0]["searches"]
    ]
    return "\n\n".join(
        [
            "## Neighbour search",
            f"Ten nearest of {found[0]['queries']:,} items among {rung.n_items:,} (`search_neighbours`), with the "
            "recall that the search itself measures. Times include building the index and measuring the recall. The "
            "visual features of this data lie in 64 clusters, so their recall flatters; the latent vectors are "
            "noise, the hardest case.",
            table(["space", "seconds", "recall"], rows),
        ]
    )


def growth(answers: Answers, rungs: Sequence[Rung]) -> dict[str, tuple[list[float], list[float]]]:
    """Sizes and seconds by curve: training against interactions, evaluation against users x items."""
    series: dict[str, tuple[list[float], list[float]]] = {}

    def add(label: str, size: float, seconds: float | None) -> None:
        if seconds:
            sizes, values = series.setdefault(label, ([], []))
            sizes.append(size)
            values.append(seconds)

    for rung in rungs:
        for label, name, options in (
            ("training: imgrec ImgRec-FT", "imgrec-ft-rate", {"batch": 1024, "precision": "float32"}),
            ("training: imgrec VBPR", "vbpr-rate", {"batch": 1024, "precision": "float32"}),
            ("training: imgrec BPR-MF", "bpr-mf-rate", {}),
            ("training: Cornac VBPR", "cornac-vbpr", {"batch": 1024}),
            ("training: RecBole BPR", "recbole-bpr", {}),
            ("training: scripts' loop", "scripts-loop", {}),
        ):
            rate = answers.best(name, rung.name, "rate", **options)
            add(label, rung.n_pairs, ratio(rung.n_pairs, rate))
        pairs = rung.n_users * rung.n_items
        add("evaluation: imgrec", pairs, answers.best("evaluation", rung.name, "seconds"))
        add("evaluation: bare products", pairs, answers.best("evaluation", rung.name, "bare"))
        for peer, title in (("cornac", "Cornac"), ("lightfm", "LightFM"), ("recbole", "RecBole")):
            found = answers.of(f"{peer}-evaluation", rung.name)
            add(
                f"evaluation: {title}", pairs, found[0]["seconds"] / found[0]["users"] * rung.n_users if found else None
            )
    return series


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """Slope of the last step in double logarithmic scale: 1 is linear."""
    return float(np.log(seconds[-1] / seconds[-2]) / np.log(sizes[-1] / sizes[-2]))


def growth_section(answers: Answers, rungs: Sequence[Rung], plot: Path, report: Path) -> str:
    series = growth(answers, rungs)
    if not series:
        return ""
    draw(series, plot)
    rows = [
        [label, *seconds, exponent(sizes, seconds)]
        for label, (sizes, seconds) in series.items()
        if len(sizes) == len(rungs) > 1
    ]
    return "\n\n".join(
        [
            "## Growth",
            "Seconds an epoch, and seconds of an evaluation of all users (the peers' from 500 users). The exponent "
            "is the slope between the two largest rungs in double logarithmic scale: 1 is linear in interactions "
            "(training) or in users x items (evaluation).",
            f"![Seconds against size, both axes logarithmic: training on the left, evaluation on the right]"
            f"({os.path.relpath(plot, report.parent)})",
            table(["", *(f"rung {rung.name}, s" for rung in rungs), "exponent"], rows),
        ]
    )


def draw(series: dict[str, tuple[list[float], list[float]]], path: Path) -> None:
    colours = ["#0072B2", "#009E73", "#56B4E9", "#D55E00", "#CC79A7", "#000000"]  # told apart by the colour-blind
    markers = "osD^vx"
    panels = {
        "training": ("One epoch of training", "training interactions"),
        "evaluation": ("Exact evaluation of all users", "users x items"),
    }
    panels = {kind: panel for kind, panel in panels.items() if any(label.startswith(kind) for label in series)}
    figure, axes = pyplot.subplots(1, len(panels), figsize=(5 * len(panels), 4), dpi=100, squeeze=False)
    for axis, (kind, (title, size)) in zip(axes[0], panels.items(), strict=True):
        chosen = [(label.removeprefix(f"{kind}: "), s) for label, s in series.items() if label.startswith(kind)]
        for (label, (sizes, seconds)), colour, marker in zip(chosen, colours, markers, strict=False):
            axis.plot(sizes, seconds, marker=marker, color=colour, label=label, linewidth=1.5, markersize=5)
        axis.set(xscale="log", yscale="log", xlabel=size, ylabel="seconds", title=title)
        axis.xaxis.set_minor_formatter(NullFormatter())  # within one decade they would run into each other
        axis.grid(True, which="major", alpha=0.3)
        axis.legend(fontsize=8, frameon=False)
    figure.tight_layout()
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")
    pyplot.close(figure)


def goals(answers: Answers, rungs: Sequence[Rung], batches: Sequence[int]) -> str:
    """Each goal with what was measured at the largest rung, and whether it is met."""
    rung = rungs[-1]
    rows: list[list[Any]] = []

    def goal(
        text: str, measured: float | None, met: Callable[[float], bool], unit: str = "", bound: float | None = None
    ) -> None:
        said = "not measured" if measured is None else f"{_cell(float(measured))}{unit}"
        most = "" if bound is None else f"{_cell(float(bound))}{unit}"
        rows.append([text, said, "-" if measured is None else "yes" if met(measured) else "**no**", most])

    bare, seconds = (answers.best("evaluation", rung.name, key) for key in ("bare", "seconds"))
    goal("exact evaluation within 2x of the bare products", ratio(seconds, bare), lambda x: x <= 2, "x")
    above = answers.best("evaluation-memory", rung.name, "above")
    goal("its peak memory under 2 GB above the factors", None if above is None else above / 1e9, lambda x: x < 2, " GB")
    titles = {"vbpr": "VBPR", "imgrec-ft": "ImgRec-FT"}
    for batch, precision, model in product(batches, FLOPS, titles):
        theirs = answers.best("cornac-vbpr", rung.name, "rate", batch=batch)
        mine = answers.best(f"{model}-rate", rung.name, "rate", batch=batch, precision=precision)
        most = ratio(visual_floor(answers, model, rung, batch, precision), theirs)
        text = f"{titles[model]} in {precision} 10x Cornac's VBPR, batches of {batch:,}"
        goal(text, ratio(mine, theirs), lambda x: x >= 10, "x", most)
    for row in auc_rows(answers, rungs[-1:]):
        goal(f"{row[0]}: at least level to the same AUC", row[5], lambda x: x >= 1, "x")
    loop = answers.best("scripts-loop", rung.name, "rate")
    for precision in FLOPS:
        mine = answers.best("imgrec-ft-rate", rung.name, "rate", batch=1024, precision=precision)
        most = ratio(visual_floor(answers, "imgrec-ft", rung, 1024, precision), loop)
        goal(f"ImgRec-FT in {precision} 100x the scripts' loop", ratio(mine, loop), lambda x: x >= 100, "x", most)
    evaluated = answers.best("sampled-evaluation", rung.name, "evaluated")
    slow = answers.best("scripts-loop", rung.name, "evaluated")
    flops = answers.best("machine", LARGEST.name, "flops")  # with 100 items a user nearly the whole catalogue is drawn
    embedding = ratio(2 * rung.n_items * FEATURES * UNITS, flops)
    most = ratio(ratio(rung.n_users, embedding), slow)
    goal("their sampled evaluation 100x", ratio(evaluated, slow), lambda x: x >= 100, "x", most)
    series = growth(answers, rungs)
    for label in (
        "training: imgrec ImgRec-FT",
        "training: imgrec VBPR",
        "training: imgrec BPR-MF",
        "evaluation: imgrec",
    ):
        if label in series and len(series[label][0]) > 1:
            slope = exponent(*series[label])
            goal(f"{label}: grows no faster than linearly (exponent, 0.1 for noise)", slope, lambda x: x <= 1.1)
    start = answers.best("start-up", rung.name, "seconds", min)
    goal(
        "start-up under 1 s a million interactions",
        None if start is None else start / rung.n_pairs * 1e6,
        lambda x: x < 1,
        " s",
    )
    peak = answers.best("training-memory", rung.name, "peak")
    goal("ImgRec-FT's peak memory under 4 GB", None if peak is None else peak / 1e9, lambda x: x < 4, " GB")
    rows.append(["the same on a GPU", "not measured: no GPU was at hand", "-", ""])
    return "\n\n".join(
        [
            f"## Goals, at rung {rung.name}",
            table(["goal", "measured", "met", "at the floor"], rows),
            "At the floor: what the ratio would be if the products with the features were everything and ran at this "
            "machine's full rate. A goal above it is out of reach here for any implementation that makes the same "
            "products.",
        ]
    )


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def write_report(
    records: Sequence[Record], rungs: Sequence[Rung], options: argparse.Namespace, load: Sequence[float], seconds: float
) -> None:
    """Write the report and the plot."""
    answers = Answers(records)
    batches = sorted({int(r["options"]["--batch"]) for r in records if r["name"] == "cornac-vbpr"})
    packages = ", ".join(f"{name} {number}" for name, number in answers.versions().items())
    failures = answers.failures()
    sections = [
        "# Benchmarks",
        "Written by `python benchmarks/run.py`; do not edit. Data: generated, of the size of Amazon Fashion (rung 1: "
        f"{LARGEST.n_users:,} users, {LARGEST.n_items:,} items, {LARGEST.n_pairs:,} training interactions, 2048 "
        "features in float32, memory-mapped) and a quarter, a sixteenth and a sixty-fourth of it. It shows cost, "
        "not which model is better.",
        f"{processor()}, {os.cpu_count()} cores, {options.threads} threads for every library, {platform.system()}, "
        f"Python {platform.python_version()}; models on {options.device}. {packages}.",
        "Libraries are measured in turn and each is taken at its best round. Load average "
        f"{load[0]:.1f} when the suite began and {load[1]:.1f} when it ended, of which the suite itself makes up to "
        f"{options.threads}: anything above comes from other work on the machine, and times then vary by large "
        "factors. Ratios of the same rows are what to read.",
        goals(answers, rungs, batches),
        evaluation_section(answers, rungs),
        visual_section(answers, rungs, batches),
        loop_section(answers, rungs),
        collaborative_section(answers, rungs),
        auc_section(answers, rungs),
        growth_section(answers, rungs, options.plot, options.out),
        memory_section(answers, rungs),
        profile_section(answers, rungs),
        neighbours_section(answers, rungs),
        "" if not failures else "## Not measured\n\n" + "\n".join(f"- {name}: {why}" for name, why in failures.items()),
        "## Again\n\n```sh\npython benchmarks/run.py --setup   # the peers, in environments of their own\n"
        f"python benchmarks/run.py           # this page ({seconds / 60:.0f} minutes this time)\n```\n\n"
        "`--quick` takes the two small rungs, `--only` some groups, `--threads` and `--device` what they say. "
        "Answers are kept in the cache until the code changes, so that a stopped suite goes on; `--fresh` measures "
        "all again.",
    ]
    write_text(options.out, "\n\n".join(section for section in sections if section) + "\n")
