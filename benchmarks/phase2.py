"""What phase 2 of ImgRec-EtE costs: the paper's loop, the kept trunk, and item batches, in one run on one machine.

    python benchmarks/phase2.py
    python benchmarks/phase2.py --dataset hm --root PATH --device cuda --batch-size 256 --items 256
    python benchmarks/phase2.py --dataset hm --root PATH --size 64 --batch-size 256 --race   # reports/phase2.md

- naive: the paper's loop. For every interaction two pictures go through the whole network.
- kept trunk: the same interactions, but the frozen layers' activations are kept and each picture is looked at once a
  step.
- item batches: steps that draw items and use all that is known of them (`Sampler.item_batch`).

All three are timed in turn, round by round; the table holds medians. An epoch draws as many positives as there are
training interactions in the first two and passes over the catalogue in the third: either way, every interaction counts
about once, in the third in fewer and fuller steps. The share of the matrix rate is the counted floating-point
operations over those of a large matrix product in the same time and precision (bfloat16 on a GPU, else float32).

`--race` asks instead how many pictures each sampler looks at until a validation AUC is reached. Both start phase 2 from
the same weights, those of phase 1 after few epochs, so that there is something left to learn. Each runs at every one of
`--rates` and is judged by its best; the AUC to reach is the best of the interactions' sampler.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from imgrec_lib import ValidationAUC, build_model, fit, load_dataset
from imgrec_lib.data.dataset import Dataset, TrainingData
from imgrec_lib.data.sampler import Batch, Sampler
from imgrec_lib.models.imgrec_ete import ImgRecEtE
from imgrec_lib.models.parts.losses import binary_cross_entropy
from imgrec_lib.report import format_table


class Naive(ImgRecEtE):
    """The paper's loop: every picture of every interaction through the whole network, as often as it occurs."""

    def ranking(self, batch: Batch) -> Tensor:  # type: ignore[override]
        items = torch.cat([batch.positives, batch.negatives.flatten()])
        assert self.images is not None
        pixels = torch.from_numpy(np.array(self.images.pixels[items.cpu().numpy()])).to(items.device)
        phi = torch.relu(self.layer(self.backbone(pixels)))
        z = self.item_table[items] + phi @ self.image_weight + self.item_bias
        positive, negative = z.split([len(batch.positives), batch.negatives.numel()])
        user = self.embed_users(batch.users)
        negative = negative.view(*batch.negatives.shape, -1)
        return binary_cross_entropy((user * positive).sum(1), torch.einsum("bk,bnk->bn", user, negative))


class Variant:
    """One way to train phase 2, ready to step."""

    def __init__(
        self, data: TrainingData, build: Callable[[], ImgRecEtE], device: torch.device, **settings: Any
    ) -> None:
        self.device, self.model = device, build().to(device)
        self.settings = replace(self.model.phases[1], **settings)
        self.sampler = Sampler(data, 0, device)
        parameters = list(self.model.start_phase(1))
        self.optimiser = torch.optim.Adam(parameters, lr=self.settings.learning_rate, fused=True)
        self.steps_an_epoch = self.model.steps(self.sampler, self.settings)
        self.pictures = 0
        self.model.train()

    def step(self) -> None:
        batch: Any = self.model.sample(self.sampler, self.settings)
        if isinstance(self.model, Naive):
            self.pictures = batch.positives.numel() + batch.negatives.numel()
        elif isinstance(batch, Batch):
            self.pictures = len(torch.cat([batch.positives, batch.negatives.flatten()]).unique())
        else:
            self.pictures = len(batch.items)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            loss = self.model.loss(batch)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()

    def seconds(self, steps: int) -> float:
        """Mean seconds of a step."""
        self._wait()
        began = time.perf_counter()
        for _ in range(steps):
            self.step()
        self._wait()
        return (time.perf_counter() - began) / steps

    def flops(self) -> int:
        backward = {torch.ops.aten.convolution_backward: convolution_backward_flops}
        with FlopCounterMode(display=False, custom_mapping=backward) as counter:
            self.step()
        return counter.get_total_flops()

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def convolution_backward_flops(gradient: Any, inputs: Any, weight: Any, *rest: Any, **options: Any) -> int:
    """Operations of a convolution's backward pass, from shapes; torch's own count takes no account of groups."""
    wanted = rest[-1]  # which of the gradients: of the inputs, the weight, the bias
    return sum(wanted[:2]) * 2 * math.prod(gradient) * math.prod(weight[1:])


def matrix_rate(device: torch.device, size: int = 1024, repeats: int = 20) -> float:
    """Floating-point operations a second of a large matrix product."""
    gpu = device.type == "cuda"
    size = 8 * size if gpu else size
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16 if gpu else torch.float32) for _ in range(2))
    best = float("inf")
    for _ in range(repeats):
        began = time.perf_counter()
        a @ b
        if gpu:
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


def measure(variants: Mapping[str, Variant], steps: int, rounds: int, rate: float) -> pd.DataFrame:
    """One row a variant; the rounds of all variants alternate."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for variant in variants.values():
        variant.step()  # computes and keeps the activations, and warms up
    for _ in range(rounds):
        for name, variant in variants.items():
            seconds[name].append(variant.seconds(steps))
    rows = {}
    for name, variant in variants.items():
        step = statistics.median(seconds[name])
        rows[name] = {
            "pictures a step": variant.pictures,
            "ms a step": 1000 * step,
            "pictures a second": variant.pictures / step,
            "steps an epoch": variant.steps_an_epoch,
            "seconds an epoch": variant.steps_an_epoch * step,
            "share of matrix rate": variant.flops() / step / rate,
        }
    table = pd.DataFrame(rows).T
    naive = table.iloc[0]
    table.insert(3, "ratio of pictures a second", table["pictures a second"] / naive["pictures a second"])
    table.insert(6, "ratio of epochs a second", naive["seconds an epoch"] / table["seconds an epoch"])
    return table


@dataclass(frozen=True)
class Runner:
    """A sampler at a learning rate in the race: (pictures, seconds of training, validation AUC) at each validation."""

    sampler: str
    rate: float
    points: list[tuple[int, float, float]]

    def reached(self, auc: float) -> tuple[int, float, float] | None:
        return next((point for point in self.points if point[2] >= auc), None)


def run(
    data: TrainingData, build: Callable[[], ImgRecEtE], validate: ValidationAUC, weights: Mapping[str, Tensor],
    pictures: int, every: int, device: torch.device, **settings: Any,
) -> list[tuple[int, float, float]]:  # fmt: skip
    """Phase 2 from `weights` over so many pictures, validated whenever another `every` are through."""
    variant = Variant(data, build, device, **settings)
    variant.model.load_state_dict(weights)
    seen, spent, due, points = 0, 0.0, every, []
    while seen < pictures:
        variant.model.train()
        spent += variant.seconds(1)
        seen += variant.pictures
        if seen >= due:
            due += every
            variant.model.eval()
            points.append((seen, spent, validate(variant.model)))
    return points


def race(runners: list[Runner], n_items: int) -> pd.DataFrame:
    """One row a runner: what it took to the best AUC of the interactions' sampler."""
    target = max(auc for r in runners if r.sampler == "interactions" for _, _, auc in r.points)
    rows = []
    for r in runners:
        reached = r.reached(target)
        rows.append(
            {
                "sampler": r.sampler,
                "learning rate": r.rate,
                "pictures in all": r.points[-1][0],
                "best validation AUC": max(auc for _, _, auc in r.points),
                f"pictures to {target:.4f}": reached[0] if reached else float("nan"),
                "passes over the catalogue": reached[0] / n_items if reached else float("nan"),
                "seconds": reached[1] if reached else float("nan"),
            }
        )
    return pd.DataFrame(rows).set_index("sampler")


def run_race(
    asked: argparse.Namespace, dataset: Dataset, data: TrainingData, build: Callable[[str], ImgRecEtE],
    device: torch.device,
) -> tuple[pd.DataFrame, ImgRecEtE]:  # fmt: skip
    """The table of `race`, and the model after phase 1, from which all have started."""
    validate, model = ValidationAUC(dataset, device), build("items")
    model.phases = (replace(model.phases[0], epochs=asked.phase1_epochs, patience=0),)
    print(f"after phase 1: {fit(model, data, validate, device=device, progress=False).best_auc:.4f}", flush=True)
    runners = []
    for rate in asked.rates:
        for sampler, passes, size, every in (
            ("interactions", asked.passes[0], asked.batch_size, 2), ("items", asked.passes[1], asked.items, 1),
        ):  # fmt: skip
            points = run(
                data, partial(build, sampler), validate, model.state_dict(), int(passes * data.n_items),
                every * data.n_items, device, batch_size=size, negatives=asked.negatives, learning_rate=rate,
            )  # fmt: skip
            runners.append(Runner(sampler, rate, points))
            print(sampler, rate, [f"{auc:.4f}" for _, _, auc in points], flush=True)
    return race(runners, data.n_items), model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="wardrobe")
    parser.add_argument("--root", default=None)
    parser.add_argument("--options", type=json.loads, default={}, help="options of load_dataset, as JSON")
    parser.add_argument("--backbone", default="efficientnet-lite0")
    parser.add_argument("--weights", default="default")
    parser.add_argument("--size", type=int, default=0, help="input size in pixels; 0: the backbone's")
    parser.add_argument("--keep", default="disk", help="disk, memory or recompute")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-size", type=int, default=64, help="positives a step of the first two")
    parser.add_argument("--items", type=int, default=64, help="items a step of the third")
    parser.add_argument("--steps", type=int, default=3, help="steps a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--race", action="store_true", help="count pictures to an AUC instead")
    parser.add_argument("--phase1-epochs", type=int, default=8, help="of the race: epochs before phase 2")
    parser.add_argument("--rates", type=float, nargs="*", default=[3e-4, 1e-3], help="of the race")
    parser.add_argument("--passes", type=float, nargs=2, default=[16, 8], help="of the race: how many catalogues each")
    parser.add_argument("--negatives", type=int, default=1, help="of the race")
    asked = parser.parse_args()
    device = torch.device(asked.device)
    dataset = load_dataset(asked.dataset, asked.root, **asked.options)
    data = dataset.training_data()
    options = {key: getattr(asked, key) for key in ("backbone", "weights", "size", "keep")}

    def build(batches: str, naive: bool = False) -> ImgRecEtE:
        model: Any = build_model("imgrec-ete", data, batches=batches, **options)
        if naive:
            model.__class__ = Naive
        return model

    peak = matrix_rate(device)
    if asked.race:
        table, model = run_race(asked, dataset, data, build, device)
    else:
        variants = {
            "naive": Variant(data, lambda: build("interactions", naive=True), device, batch_size=asked.batch_size),
            "kept trunk": Variant(data, lambda: build("interactions"), device, batch_size=asked.batch_size),
            "item batches": Variant(data, lambda: build("items"), device, batch_size=asked.items),
        }
        table = measure(variants, asked.steps, asked.rounds, peak)
        model = variants["kept trunk"].model
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    print(f"{asked.dataset}: {data.n_users:,} users, {data.n_items:,} items, {len(data.interactions):,} interactions")
    print(f"{asked.backbone} at {model.backbone.size} px; {model.activations.n_bytes:,} bytes of activations kept")
    print(f"{name}, {torch.get_num_threads()} threads, {peak / 1e9:,.0f} GFLOP/s in a matrix product")
    print(f"Python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}\n")
    print(format_table(table))


if __name__ == "__main__":
    main()
