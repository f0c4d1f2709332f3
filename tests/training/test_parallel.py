"""Data parallel training: two processes on the CPU end where one does."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from toy import planted_dataset, toy_data

from imgrec_lib.data.dataset import Dataset, TrainingData
from imgrec_lib.data.sampler import Sampler
from imgrec_lib.errors import InputError
from imgrec_lib.evaluation import ValidationAUC
from imgrec_lib.models import build_model, list_models
from imgrec_lib.models.base import Recommender, TrainSettings
from imgrec_lib.runs import Record, open_run
from imgrec_lib.training import distributed, fit, read_checkpoint, trainer, write_checkpoint

pytestmark = pytest.mark.skipif(
    not (dist.is_available() and dist.is_gloo_available()), reason="this build of PyTorch has no torch.distributed"
)

TRAINED = [name for name, card in list_models().items() if card.profiles["default"].phases]
# An odd batch: the two processes have parts of different sizes.
CASES: dict[str, dict[str, Any]] = {
    "bpr-mf": {"batch_size": 75, "l2": 1e-3},
    "imgrec-ft": {"units": 5, "batch_size": 25, "accumulate": 3, "l2": 1e-4, "gradient_clip": 0.05},
}
BY_ROW = {"by row, adam": "adam", "by row, adagrad": "adagrad", "by row, sgd": "sgd"}
"""BPR-MF with tables of which only the rows of a batch are trained and sent, by optimiser."""
SHARDED = {"sharded, adam": "adam", "sharded, adagrad": "adagrad", "sharded, sgd": "sgd"}
"""The same, with tables of which each process holds a part."""
OPTIONS: dict[str, Any] = {"seed": 3, "identity": "parallel", "save_every": 0.0, "progress": False}


def build(name: str, data: TrainingData, optimiser: str = "adam", **changed: Any) -> Recommender:
    given = {"learning_rate": 1e-2 if optimiser == "adam" else 0.3, "optimiser": optimiser, "epochs": 4, "patience": 0}
    return build_model(name, data, factors=4, **(CASES[name] | given | changed))


def inputs() -> tuple[Dataset, TrainingData]:
    dataset, features = planted_dataset()
    return dataset, dataset.training_data(features, in_order=True)


def in_processes(work: Callable[..., None], folder: Path, n: int) -> None:
    """Run `work(rank, folder, port)` in n processes; the server that they are forked from imports PyTorch once."""
    multiprocessing.set_forkserver_preload(["imgrec_lib.evaluation", "imgrec_lib.models", "imgrec_lib.training"])
    torch.multiprocessing.start_processes(work, (folder, free_port()), nprocs=n, start_method="forkserver")


class Stopped(Exception):
    pass


def stop_after(n: int, validate: ValidationAUC) -> Callable[[Recommender], float]:
    """A validation that fails after n calls."""
    left = n

    def stopping(model: Recommender) -> float:
        nonlocal left
        if not left:
            raise Stopped
        left -= 1
        return validate(model)

    return stopping


def started(rank: int, processes: int, port: int) -> None:
    """Make this process one of several, as torchrun would."""
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}


def one_of_four(rank: int, folder: Path, port: int) -> None:
    started(rank, 4, port)
    with distributed.process_group("cpu"):
        train_sharded(rank, folder, *inputs())


def one_of_two(rank: int, folder: Path, port: int) -> None:
    """What each process runs: every case from the start, and one more from a checkpoint."""
    started(rank, 2, port)
    dataset, data = inputs()
    validate = ValidationAUC(dataset) if rank == 0 else stop_after(0, ValidationAUC(dataset))
    with distributed.process_group("cpu") as device:
        runs = {name: (name, folder / f"{name}.{rank}.running") for name in CASES}
        runs["resumed"] = ("bpr-mf", folder / "stopped.safetensors")
        for key, (name, checkpoint) in runs.items():
            model = build(name, data)
            if rank:  # weights that are not the first process's
                torch.nn.init.ones_(next(model.parameters()))
            result = fit(model, data, validate, device=device, checkpoint=checkpoint, **OPTIONS)
            write_checkpoint(folder / f"{key}.{rank}", {"model": model.state_dict()}, {}, "")
            result.curve.to_csv(folder / f"{key}.{rank}.csv", index=False)
        with pytest.raises(InputError, match="batch of 1 cannot be shared by 2"):
            fit(build_model("bpr-mf", data, batch_size=1), data, validate, progress=False)
        trainer.ROWS_PER_LOOK_UP = 0
        for key, optimiser in BY_ROW.items():
            model = build("bpr-mf", data, optimiser)
            sent = counted_bytes(partial(fit, model, data, validate, device=device, **OPTIONS))
            write_checkpoint(folder / f"{key}.{rank}", {"model": model.state_dict()}, {}, "")
            (folder / f"{key}.{rank}.bytes").write_text(json.dumps(sent))
        train_sharded(rank, folder, dataset, data)
    assert not dist.is_initialized()


def train_sharded(rank: int, folder: Path, dataset: Dataset, data: TrainingData) -> None:
    """What each of several processes does with tables of which it holds a part."""
    validate = ValidationAUC(dataset)
    for key, optimiser in SHARDED.items():
        model = build("bpr-mf", data, optimiser, shard_tables=True)
        sent = counted_bytes(partial(fit, model, data, validate, **OPTIONS))
        write_checkpoint(folder / f"{key}.{rank}", {"model": model.state_dict()}, {}, "")
        (folder / f"{key}.{rank}.bytes").write_text(json.dumps(sent))
    # The first half of a training, and the second half of one that a single process began.
    begun = build("bpr-mf", data, epochs=2, shard_tables=True)
    fit(begun, data, validate, keep=folder / "begun by several", **OPTIONS)
    ended = build("bpr-mf", data, shard_tables=True)
    fit(ended, data, validate, checkpoint=folder / "begun by one", **OPTIONS)
    write_checkpoint(folder / f"sharded, resumed.{rank}", {"model": ended.state_dict()}, {}, "")
    for model, sentence in (
        (build_model("warp", data, shard_tables=True), "otherwise than by looking rows up"),
        (build_model("lightgcn", data, shard_tables=True), "LightGCN cannot be trained with shard_tables"),
        (build("bpr-mf", data, gradient_clip=1.0, shard_tables=True), "no gradient_clip"),
    ):
        with pytest.raises(InputError, match=sentence):
            fit(model, data, None, progress=False)


def counted_bytes(train: Callable[[], Any]) -> dict[str, int]:
    """The bytes that this process hands over while `train` runs: of whole gradients, of rows, and to rows' holders."""
    sent = {"whole": 0, "rows": 0, "holders": 0}
    all_reduce, all_gather, all_to_all = dist.all_reduce, dist.all_gather, dist.all_to_all_single

    def reducing(tensor: Tensor, **options: Any) -> Any:
        sent["whole"] += tensor.nbytes
        return all_reduce(tensor, **options)

    def gathering(parts: list[Tensor], tensor: Tensor) -> Any:
        sent["rows"] += tensor.nbytes
        return all_gather(parts, tensor)

    def exchanging(found: Tensor, tensor: Tensor, received: list[int], sent_rows: list[int]) -> Any:
        sent["holders"] += tensor.nbytes
        return all_to_all(found, tensor, received, sent_rows)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dist, "all_to_all_single", exchanging)
        patch.setattr(dist, "all_reduce", reducing)
        patch.setattr(dist, "all_gather", gathering)
        train()
    return sent


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def begin_alone(folder: Path) -> None:
    """The first half of a training, with which several processes go on."""
    dataset, data = inputs()
    begun = build("bpr-mf", data, epochs=2, shard_tables=True)
    fit(begun, data, ValidationAUC(dataset), keep=folder / "begun by one", **OPTIONS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes left behind."""
    folder = tmp_path_factory.mktemp("parallel")
    dataset, data = inputs()
    stopping = stop_after(3, ValidationAUC(dataset))
    with pytest.raises(Stopped):
        fit(build("bpr-mf", data), data, stopping, checkpoint=folder / "stopped.safetensors", **OPTIONS)
    begin_alone(folder)
    in_processes(one_of_two, folder, 2)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("key", [*CASES, "resumed"])
def test_two_processes_have_the_curve_and_the_weights_of_one(folder: Path, key: str) -> None:
    dataset, data = inputs()
    name = "bpr-mf" if key == "resumed" else key
    model = build(name, data)
    initial = {name: value.clone() for name, value in model.state_dict().items()}
    expected = fit(model, data, ValidationAUC(dataset), **OPTIONS).curve
    assert expected["validation_auc"].argmax() > 0, "what returns must have been trained"
    for rank in range(2):
        weights = read_checkpoint(folder / f"{key}.{rank}").group("model")
        for part, value in model.state_dict().items():
            torch.testing.assert_close(weights[part], value, rtol=1e-3, atol=1e-5)
            assert not torch.allclose(weights[part], initial[part], rtol=1e-2, atol=1e-4)
        curve = pd.read_csv(folder / f"{key}.{rank}.csv")
        np.testing.assert_allclose(curve["loss"], expected["loss"], rtol=1e-5)
        np.testing.assert_allclose(curve["validation_auc"], expected["validation_auc"], atol=1e-3)


@pytest.mark.parametrize("key", BY_ROW)
def test_rows_that_two_processes_exchange_train_as_those_of_one_do(
    folder: Path, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, data = inputs()
    monkeypatch.setattr(trainer, "ROWS_PER_LOOK_UP", 0)
    model = build("bpr-mf", data, BY_ROW[key])
    fit(model, data, ValidationAUC(dataset), **OPTIONS)
    first, second = (read_checkpoint(folder / f"{key}.{rank}").group("model") for rank in range(2))
    for part, value in model.state_dict().items():
        assert torch.equal(first[part], second[part])
        torch.testing.assert_close(first[part], value, rtol=1e-3, atol=1e-5)
    sent = json.loads((folder / f"{key}.0.bytes").read_text())
    steps = 4 * max(1, len(data.interactions.items) // 75)
    rows, tables = 75 * 2, 3  # at most so many different rows a step in each; the numbers of rows come before them
    assert 0 < sent["rows"] <= steps * tables * (rows * (8 + 4 * 4) + 8)
    assert sent["whole"] == 4 * 4 * max(1, len(data.interactions.items) // 75), "the losses, and no gradient"


def check_sharded(folder: Path, processes: int) -> None:
    """What several processes made of divided tables is what one makes of whole ones."""
    dataset, data = inputs()
    steps = 4 * max(1, len(data.interactions.items) // 75)
    for key, optimiser in SHARDED.items():
        one = build("bpr-mf", data, optimiser, shard_tables=True)
        fit(one, data, ValidationAUC(dataset), **OPTIONS)
        parts = [read_checkpoint(folder / f"{key}.{rank}").group("model") for rank in range(processes)]
        for name, value in one.state_dict().items():
            torch.testing.assert_close(parts[0][name], value, rtol=1e-3, atol=1e-5)
            starts = [len(value) * p // processes for p in range(processes + 1)]
            assert [len(part[name]) for part in parts[1:]] == np.diff(starts)[1:].tolist(), "the others keep their rows"
        sent = json.loads((folder / f"{key}.0.bytes").read_text())
        # A process looks up at most so many rows of each of three tables: numbers, rows, gradients; and counts them.
        assert 0 < sent["holders"] <= steps * 3 * (processes * 8 + (75 // processes + 1) * 2 * (8 + 2 * 4 * 4) * 2)
        assert sent["rows"] == 0
    whole = build("bpr-mf", data, shard_tables=True)
    curve = fit(whole, data, ValidationAUC(dataset), **OPTIONS).curve
    resumed = read_checkpoint(folder / "sharded, resumed.0").group("model")
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed[name], value, rtol=1e-3, atol=1e-5)
    ended = build("bpr-mf", data, shard_tables=True)
    found = fit(ended, data, ValidationAUC(dataset), checkpoint=folder / "begun by several", **OPTIONS).curve
    np.testing.assert_allclose(found["loss"], curve["loss"], rtol=1e-5)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(ended.state_dict()[name], value, rtol=1e-3, atol=1e-5)


def test_divided_tables_train_as_whole_ones_do_and_go_on_in_another_number_of_processes(folder: Path) -> None:
    check_sharded(folder, 2)


@pytest.mark.slow
def test_tables_are_divided_among_four_processes(tmp_path: Path) -> None:
    begin_alone(tmp_path)
    in_processes(one_of_four, tmp_path, 4)
    check_sharded(tmp_path, 4)


def test_all_processes_end_with_the_same_weights_and_only_the_checkpoint_of_the_first_was_written(folder: Path) -> None:
    for key in (*CASES, "resumed"):
        first, second = (read_checkpoint(folder / f"{key}.{rank}").group("model") for rank in range(2))
        assert all(torch.equal(first[name], second[name]) for name in first)
    assert not list(folder.glob("*.running")) and not (folder / "stopped.safetensors").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("world_size", [2, 3])
def test_the_parts_of_a_batch_have_the_loss_of_the_whole(name: str, world_size: int) -> None:
    data = toy_data(image_size=32)
    seeing: dict[str, Any] = {"imgrec-ete": {"l2": 0.1, "size": 32}, "two-tower-ete": {"size": 32}}
    model = build_model(name, data, factors=4, **seeing.get(name, {})).eval()
    for phase in range(len(model.phases)):
        parameters = list(model.start_phase(phase))
        batch = model.sample(Sampler(data, 0), TrainSettings(batch_size=10, negatives=2))
        whole = model.loss(batch)
        expected = torch.autograd.grad(whole, parameters, allow_unused=True)
        parts = [model.shard(batch, rank, world_size) for rank in range(world_size)]
        total = torch.stack([weight * model.loss(part) for part, weight in parts]).sum()
        found = torch.autograd.grad(total, parameters, allow_unused=True)
        torch.testing.assert_close(total, whole)
        assert sum(weight for _, weight in parts) == pytest.approx(1)
        for f, e in zip(found, expected, strict=True):
            assert (f is None) == (e is None)
            if e is not None:
                torch.testing.assert_close(f, e, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_torchrun_trains_a_run_like_one_process(tmp_path: Path) -> None:
    arguments = ["--no-notebook", "--model", "bpr-mf", "-o", "n_users=60", "-o", "n_items=50", "-o", "image_size=32"]
    arguments += ["-p", "epochs=2", "-p", "factors=4", "-p", "batch_size=64"]
    command = [sys.executable, "-c", "from imgrec_lib.cli import main; main()", "train", *arguments]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--no-python"]
    torchrun += ["--master-addr", "127.0.0.1", "--master-port", str(free_port())]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}

    def record(name: str, *launcher: str) -> Record:
        done = subprocess.run(
            [*launcher, *command, "--out", str(tmp_path / name)], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("exact") == 1, "the first process alone prints the metrics"
        return open_run(tmp_path / name).record

    two, one = record("two", *torchrun), record("one")
    assert (two.processes, one.processes) == (2, 1) and two.identity == one.identity
    of_two, of_one = (pd.read_csv(tmp_path / name / "curve.csv")["loss"] for name in ("two", "one"))
    np.testing.assert_allclose(of_two, of_one, rtol=1e-5)
    assert two.metrics["exact"]["auc"] == pytest.approx(one.metrics["exact"]["auc"], abs=1e-3)


@pytest.mark.parametrize("device, sentence", [("cuda:1", "'cpu' or 'cuda'"), ("mps", "'cpu' or 'cuda'")])
def test_a_device_that_is_not_one_a_process_is_refused(
    monkeypatch: pytest.MonkeyPatch, device: str, sentence: str
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(dist, "is_nccl_available", lambda: True)
    with pytest.raises(InputError, match=sentence), distributed.process_group(device):
        pass


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dist, "is_nccl_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for name, value in {"WORLD_SIZE": "2", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="more processes than the 1 GPUs"), distributed.process_group("cuda"):
        pass


def test_without_torchrun_nothing_changes() -> None:
    with distributed.process_group("cuda:3") as device:
        assert device == "cuda:3" and (distributed.rank(), distributed.world_size()) == (0, 1)
