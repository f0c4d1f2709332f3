"""The trainer: one loop for every model, with early stopping by a validation metric and exact resumption.

It knows a model only through `Recommender`, and validation only as a function that it is given: held-out items
never reach it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from imgrec_lib.data.dataset import TrainingData
from imgrec_lib.data.sampler import Sampler
from imgrec_lib.devices import Device
from imgrec_lib.errors import InputError, one_line
from imgrec_lib.models.base import ParameterGroup, Recommender, TrainSettings
from imgrec_lib.options import CountOrNone, NotNegative
from imgrec_lib.progress import progress_bar
from imgrec_lib.training import distributed
from imgrec_lib.training.checkpoint import load_optimiser, optimiser_tensors, read_checkpoint, write_checkpoint
from imgrec_lib.training.rows import RowAdagrad, RowAdam, rows_only
from imgrec_lib.training.shards import Shards

ROWS_PER_LOOK_UP = 8
"""Tables with at least so many rows for each row that a step looks up are trained by row (`training.rows`)."""

LEAST_WIDTH = 8
"""Finding a row in memory takes as long as moving so many numbers: a narrower table has to have more rows."""

Validate = Callable[[Recommender], float | Mapping[str, float]]
"""Validates a model as it is: the metrics of the validation items by name, "auc" among them, or AUC alone."""


@dataclass(frozen=True)
class FitResult:
    """What training leaves behind; the model itself holds the weights that are kept (`TrainSettings.restore`).

    Attributes:
        curve: one row an epoch: `phase` and `epoch` (both from 1; epoch 0 is before training), `loss` (mean over the
            epoch's steps; missing at epoch 0), `validation_auc` (missing where not validated), where the weights are
            chosen by another metric that one too (`validation_ndcg@10`), `seconds` of training in this epoch,
            validation excluded.
        validation: metrics, by name, of the weights that are kept, the best or, with restore "last", the last; empty
            where nothing was validated. best_phase, best_epoch: when they were reached.
        interactions_per_second: positives drawn a second of training, over all epochs.
        choose_by: the metric by which the weights were chosen.
        stopped: whether `observe` ended the training.
    """

    curve: pd.DataFrame
    validation: dict[str, float]
    best_phase: int
    best_epoch: int
    interactions_per_second: float
    choose_by: str = "auc"
    stopped: bool = False

    @property
    def best_auc(self) -> float | None:
        """Validation AUC of the weights that are kept; None where nothing was validated."""
        return self.validation.get("auc")


@dataclass
class _Progress:
    """Where training stands; with the tensors beside it in the checkpoint it is all that resumption needs."""

    phase: int = 0
    epoch: int = 0
    best: float | None = None
    validation: dict[str, float] = field(default_factory=dict)
    best_phase: int = 0
    best_epoch: int = 0
    stale: int = 0
    positives: int = 0
    curve: list[dict[str, Any]] = field(default_factory=list)


def fit(
    model: Recommender,
    data: TrainingData,
    validate: Validate | None,
    *,
    seed: CountOrNone = 0,
    device: Device = "cpu",
    checkpoint: Path | None = None,
    keep: Path | None = None,
    moments: Mapping[str, Tensor] | None = None,
    identity: str = "",
    save_every: NotNegative = 30.0,
    progress: bool = True,
    observe: Callable[[dict[str, Any]], bool | None] | None = None,
) -> FitResult:
    """Train a model in place and leave it, in evaluation mode, with the weights of its best validation (or the last).

    Everything a step needs lies on the device; on the CPU the result depends on the seed alone. Mixed precision
    (`TrainSettings.precision`) does without scaling: bfloat16 has the range of float32. No loss is compiled:
    `torch.compile` of ImgRec-FT's saves less than a tenth of a step on a CPU, and costs half a minute to begin with.

    In a process group (see `distributed`) every process calls this with the same arguments and its own device. They
    share each batch, and all end with the same weights; of tables that were divided (`TrainSettings.shard_tables`) the
    first process alone has all rows at the end.

    Args:
        model: an untrained model, from `build_model`.
            `model.phases` are the settings of each training phase; a phase starts from the weights that the one before
            left behind, with a fresh optimiser. A model without phases is only validated.
        data: its training data.
        validate: see `Validate`. None where there are no validation items: all epochs are run, and the last weights
            kept.
        seed: seeds batches and dropout.
        device: where to train; the model is moved there.
        checkpoint: file to save to while training (safetensors); when it exists, training goes on from it and ends as
            if it had never stopped. It is deleted at the end.
        keep: file that gets the state after the last epoch, as a checkpoint: training of more epochs can go on from it.
        moments: the optimiser's tensors to begin with, as a checkpoint's group "optimiser" has them; None for none.
        identity: says what is being trained (dataset, model, parameters); a checkpoint of another identity is refused.
        save_every: seconds between saves, after the first epoch's; 0 saves after every epoch.
        progress: show a progress bar.
        observe: called after each epoch, in the first process, with the epoch's row of the curve, `trained` (epochs of
            all phases so far), `phases`, `epochs` (at most so many in this phase), `choose_by` and `best`, the best
            value of that metric so far (None without validation). Where it returns True, this epoch was the last of
            all; of several processes no one may end the training.

    Raises:
        InputError: the checkpoint belongs to another run, a setting is unknown or not for this model, a batch is
            smaller than the number of processes, or loss or weights stop being finite.

    Example:
        >>> from imgrec_lib import ValidationAUC, build_model, fit, load_dataset
        >>> dataset = load_dataset("wardrobe", n_users=40, n_items=50, image_size=32, progress=False)
        >>> data = dataset.training_data()
        >>> result = fit(build_model("bpr-mf", data, epochs=2), data, ValidationAUC(dataset), progress=False)
        >>> result.curve["epoch"].tolist()
        [0, 1, 2]
    """
    device, first = torch.device(device), distributed.rank() == 0
    model.to(device)
    phases = model.phases
    for settings in phases:
        _check(settings, model)
    if not phases:
        return FitResult(_curve([]), _metrics(model, validate, "auc", device), 0, 0, 0.0)
    with _reproducible(device, seed):
        sampler = Sampler(data, seed, device)
        state = _Progress()
        best: dict[str, Tensor] = {}
        saved, stopped = None, False

        def save(path: Path) -> None:
            groups = {"model": model.state_dict(), "best": best, "optimiser": optimiser_tensors(optimiser)}
            groups["random"] = {"sampler": sampler.generator.get_state(), "global": _random_state(device)}
            groups = shards.gathered(groups)
            if first:
                write_checkpoint(path, groups, vars(state), identity)

        if checkpoint is not None and checkpoint.exists():
            saved = read_checkpoint(checkpoint, identity, device)
            with _refusing_what_does_not_fit(checkpoint):
                state = _Progress(**saved.progress)
                best = saved.group("best")
                if not 0 <= state.phase < len(phases):
                    raise ValueError(f"there is no phase {state.phase + 1}")
        distributed.barrier()  # the first process may delete the checkpoint only after all have read it
        for phase in range(state.phase, len(phases)):
            settings = phases[phase]
            if saved is None and best:
                model.load_state_dict(best)
            parameters = list(model.start_phase(phase))
            own_ways = list(model.parameter_groups())
            tables = _row_tables(model, parameters, settings, device, own_ways)
            if saved is not None:
                with _refusing_what_does_not_fit(checkpoint):
                    model.load_state_dict(saved.group("model"))
            else:
                distributed.spread(model.state_dict().values())
            divided = settings.shard_tables and distributed.world_size() > 1
            shards = Shards(model, parameters, tables if divided else ())
            optimiser = _optimiser(parameters, own_ways, settings, tables)
            if saved is not None:
                with _refusing_what_does_not_fit(checkpoint):
                    best, kept = shards.cut({"best": best, "optimiser": saved.group("optimiser")}).values()
                    load_optimiser(optimiser, kept)
                    sampler.generator.set_state(saved.tensors["random.sampler"].cpu())
                    _set_random_state(device, saved.tensors["random.global"].cpu())
            else:
                state.phase, state.epoch, state.stale = phase, 0, 0
                if moments is not None:
                    load_optimiser(optimiser, shards.cut({"optimiser": dict(moments)})["optimiser"])
                best = _validated(model, validate, state, best, device, settings, shards, loss=None, seconds=0.0)
            saved = None
            steps = max(1, model.steps(sampler, settings) // settings.accumulate)
            bar = progress_bar(
                range(state.epoch, settings.epochs),
                initial=state.epoch,
                total=settings.epochs,
                desc=f"training, phase {phase + 1} of {len(phases)}" if len(phases) > 1 else "training",
                unit="epoch",
                disable=not progress or not first,
            )
            last_save = -math.inf  # the first epoch is saved: a folder that cannot be written shows at once
            for epoch in bar:
                if settings.patience and state.stale >= settings.patience:
                    break
                loss, seconds = _epoch(model, sampler, optimiser, parameters, tables, shards, settings, steps, epoch)
                state.epoch = epoch + 1
                state.positives += steps * settings.accumulate * settings.batch_size
                if state.epoch % settings.evaluate_every == 0 or state.epoch == settings.epochs:
                    best = _validated(model, validate, state, best, device, settings, shards, loss, seconds)
                else:
                    state.curve.append(_row(state, settings, loss, {}, seconds))
                best_so_far = {} if state.best is None else {f"best_{settings.choose_by}": f"{state.best:.4f}"}
                bar.set_postfix({"loss": f"{loss:.4f}"} | best_so_far)
                if observe is not None and first:
                    whole = {"phases": len(phases), "epochs": settings.epochs, "choose_by": settings.choose_by}
                    trained = sum(row["epoch"] > 0 for row in state.curve)
                    stopped = bool(observe(state.curve[-1] | whole | {"best": state.best, "trained": trained}))
                due = time.monotonic() - last_save >= save_every
                if checkpoint is not None and distributed.agreed(float(due), device):
                    save(checkpoint)
                    last_save = time.monotonic()
                if stopped:
                    break
            bar.close()
            if keep is not None and (stopped or phase == len(phases) - 1):
                save(keep)
            if stopped:
                break
        model.load_state_dict(best)
        distributed.spread(value for name, value in model.state_dict().items() if name not in shards.names)
        shards.join()
        model.eval()
    if checkpoint is not None and first:
        checkpoint.unlink(missing_ok=True)
    seconds = sum(row["seconds"] for row in state.curve)
    rate = state.positives / max(seconds, 1e-9)
    return FitResult(
        _curve(state.curve), state.validation, state.best_phase, state.best_epoch, rate, phases[0].choose_by, stopped
    )


@contextmanager
def _refusing_what_does_not_fit(checkpoint: Path | None) -> Iterator[None]:
    """A checkpoint of the right name may still be damaged, or of another version."""
    try:
        yield
    except (LookupError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{checkpoint} does not fit this training ({one_line(error)}): delete it to train anew."
        ) from error


def _epoch(
    model: Recommender,
    sampler: Sampler,
    optimiser: torch.optim.Optimizer,
    parameters: list[nn.Parameter],
    tables: list[nn.Parameter],
    shards: Shards,
    settings: TrainSettings,
    steps: int,
    epoch: int,
) -> tuple[float, float]:
    """One epoch, by row for `tables`; returns the mean loss and the seconds it took."""
    began = time.perf_counter()
    device = sampler.device
    model.train()
    sampler.start_epoch()
    model.start_epoch(sampler)
    automatic = settings.precision == "auto" and device.type == "cuda" and model.mixed_precision
    reduced = automatic or settings.precision == "bfloat16"
    rank, world_size = distributed.rank(), distributed.world_size()
    losses = torch.zeros(steps, device=device)
    announce = optimiser.look_up if isinstance(optimiser, RowAdam) else _no_look_up
    tables = [table for table in tables if table not in shards.lengths]
    with rows_only(tables, announce), shards.looked_up(announce):
        for step in range(steps):
            if _changes(settings):
                for group in optimiser.param_groups:
                    group["lr"] = group["initial_lr"] * _share_of_rate(settings, epoch, step, steps)
            optimiser.zero_grad(set_to_none=True)
            for _ in range(settings.accumulate):
                batch, weight = model.sample(sampler, settings), 1.0
                if world_size > 1:
                    batch, weight = model.shard(batch, rank, world_size)
                with torch.autocast(device.type, torch.bfloat16, enabled=reduced):
                    loss = model.loss(batch)
                loss = loss * (weight / settings.accumulate)
                loss.backward()
                losses[step] += loss.detach()  # stays on the device: reading it here would stall a GPU at every step
            distributed.add_up_gradients((p for p in parameters if p not in shards.lengths), tables)
            shards.hand_back()
            if world_size > 1 and isinstance(optimiser, RowAdam):
                for table in tables:
                    if table.grad is not None:  # other processes have looked some of these rows up, this one not yet
                        optimiser.look_up(table, table.grad._indices()[0])
            if settings.gradient_clip:
                nn.utils.clip_grad_norm_(parameters, settings.gradient_clip)
            optimiser.step()
            model.after_step()
    if isinstance(optimiser, RowAdam):
        optimiser.catch_up()
    distributed.add_up([losses])
    mean = losses.mean().item()
    if not torch.isfinite(losses).all():
        bad = int((~torch.isfinite(losses)).nonzero()[0])
        names = [name for name, p in model.named_parameters() if not torch.isfinite(p).all()]
        raise InputError(
            f"the loss became {losses[bad].item()} in epoch {epoch + 1}, step {bad + 1}"
            + (f" (parameter {names[0]!r} is no longer finite)" if names else "")
            + ": lower the learning rate or check the features."
        )
    return mean, time.perf_counter() - began


def _validated(
    model: Recommender,
    validate: Validate | None,
    state: _Progress,
    best: dict[str, Tensor],
    device: torch.device,
    settings: TrainSettings,
    shards: Shards,
    loss: float | None,
    seconds: float,
) -> dict[str, Tensor]:
    """Validate, record it, and return the weights to be kept: the best so far, or these (`TrainSettings.restore`)."""
    values = _metrics(model, validate, settings.choose_by, device, shards.whole)
    state.curve.append(_row(state, settings, loss, values, seconds))
    value = values.get(settings.choose_by)
    if value is None or state.best is None or value > state.best or settings.restore == "last":
        state.best, state.validation = value, values
        state.best_phase, state.best_epoch, state.stale = state.phase + 1, state.epoch, 0
        return {name: value.detach().clone() for name, value in model.state_dict().items()}
    state.stale += 1
    return best


def _metrics(
    model: Recommender,
    validate: Validate | None,
    choose_by: str,
    device: torch.device,
    whole: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> dict[str, float]:
    """The validation metrics, by the first process; empty without validation.

    Every process returns the same AUC and the same metric that is chosen by, so that all stop together.
    """
    if validate is None:
        return {}
    model.eval()
    found: dict[str, float] = {}
    with whole():
        if distributed.rank() == 0:
            measured = validate(model)
            found = dict(measured) if isinstance(measured, Mapping) else {"auc": measured}
            for name in (choose_by, "auc"):
                if name not in found:
                    raise InputError(
                        f"validation does not measure {name!r}, by which the weights are to be chosen: pass fit a "
                        "ValidationMetrics of the dataset."
                    )
    found |= {name: distributed.agreed(found.get(name, 0.0), device) for name in ("auc", choose_by)}
    if math.isnan(found[choose_by]):
        raise InputError(
            f"the validation {choose_by} is not a number: no user has an item to rank the validation item against; "
            "use a larger catalogue."
        )
    return found


def _check(settings: TrainSettings, model: Recommender) -> None:
    if settings.precision not in ("auto", "float32", "bfloat16"):
        raise InputError(f"the precision is 'auto', 'float32' or 'bfloat16', not {settings.precision!r}.")
    if settings.precision == "bfloat16" and not model.mixed_precision:
        raise InputError(f"{type(model).__name__} is not trained in bfloat16: leave precision at 'auto' or 'float32'.")
    if settings.restore not in ("best", "last"):
        raise InputError(f"restore is 'best' or 'last', not {settings.restore!r}.")
    if settings.restore == "last" and settings.patience:
        raise InputError("restore 'last' keeps the last of all epochs: set patience to 0.")
    if settings.schedule not in ("constant", "linear"):
        raise InputError(f"the schedule is 'constant' or 'linear', not {settings.schedule!r}.")
    if settings.choose_by != model.phases[0].choose_by:
        raise InputError(
            f"all phases choose by the same metric, not by {model.phases[0].choose_by!r} and {settings.choose_by!r}: "
            "a phase starts from the best weights of the one before."
        )
    if settings.validation_users != model.phases[0].validation_users:
        raise InputError("all phases are validated on the same users: give each the same validation_users.")
    if settings.accumulate < 1:
        raise InputError(f"accumulate must be at least 1, not {settings.accumulate}.")
    if settings.batch_size < distributed.world_size():
        raise InputError(
            f"a batch of {settings.batch_size} cannot be shared by {distributed.world_size()} processes: "
            "raise batch_size or start fewer."
        )


def _row(
    state: _Progress, settings: TrainSettings, loss: float | None, values: Mapping[str, float], seconds: float
) -> dict[str, Any]:
    validated = {f"validation_{name}": values.get(name) for name in ("auc", settings.choose_by)}
    return {"phase": state.phase + 1, "epoch": state.epoch, "loss": loss, **validated, "seconds": seconds}


def _curve(rows: list[dict[str, Any]]) -> pd.DataFrame:
    columns = list(rows[0]) if rows else ["phase", "epoch", "loss", "validation_auc", "seconds"]
    frame = pd.DataFrame(rows, columns=columns)
    return frame.astype({name: float for name in columns if name == "loss" or name.startswith("validation_")})


def _row_tables(
    model: Recommender,
    parameters: list[nn.Parameter],
    settings: TrainSettings,
    device: torch.device,
    own_ways: Sequence[ParameterGroup] = (),
) -> list[nn.Parameter]:
    """The trained tables that are updated by row: those to be divided, else those so much larger than a batch that it
    pays.

    Not on a GPU, where a dense step over a large table is a fraction of a millisecond; nor where gradients are clipped,
    which is done with whole ones; nor where weights decay, or Adam's rate changes from step to step, for `RowAdam`
    makes up for idle steps at one rate.
    """
    trained = {id(parameter) for parameter in parameters}
    tables = [table for table in model.row_tables() if id(table) in trained]
    changing = settings.optimiser == "adam" and bool(_changes(settings) or settings.weight_decay)
    possible = device.type == "cpu" and not (settings.gradient_clip or changing or own_ways)
    if settings.shard_tables:
        if not tables or not possible or len(model.phases) > 1:
            raise InputError(
                f"{type(model).__name__} cannot be trained with shard_tables as it is asked for: it takes a model of "
                "one phase that looks rows of its tables up, a CPU, no gradient_clip, and with Adam a constant rate "
                "and no weight_decay."
            )
        return tables
    least = ROWS_PER_LOOK_UP * settings.batch_size * settings.accumulate * (1 + settings.negatives)
    large = [table for table in tables if table.numel() >= least * max(LEAST_WIDTH, table.numel() // len(table))]
    return large if possible else []


def _no_look_up(table: nn.Parameter, index: Tensor) -> None:
    """SGD and Adagrad need not know of a look-up: rows without gradient stay where they are."""


def _changes(settings: TrainSettings) -> bool:
    """Whether the learning rate changes from step to step."""
    return settings.schedule == "linear" or settings.warm_up > 0


def _share_of_rate(settings: TrainSettings, epoch: int, step: int, steps: int) -> float:
    """The learning rate of a step of an epoch, both from 0, as a part of the whole one."""
    share = 1.0
    if settings.schedule == "linear":
        share = max(1e-4, 1 - (epoch + step / steps) / settings.epochs)
    return share * min(1.0, (epoch * steps + step + 1) / max(1, settings.warm_up))


def _optimiser(
    parameters: list[nn.Parameter],
    own_ways: list[ParameterGroup],
    settings: TrainSettings,
    tables: list[nn.Parameter],
) -> torch.optim.Optimizer:
    """The optimiser of a phase; the rate of each of its groups without schedule and warm-up is its "initial_lr"."""
    rate, decay = settings.learning_rate, settings.weight_decay
    if settings.optimiser != "adam" and (own_ways or decay):
        raise InputError(
            f"weight decay, and rates of their own for some weights, are of the optimiser 'adam', not of "
            f"{settings.optimiser!r}: choose adam."
        )
    elsewhere = {id(parameter) for group in own_ways for parameter in group.parameters}
    groups: list[dict[str, Any]] = [{"params": [each for each in parameters if id(each) not in elsewhere]}]
    groups += [{"params": [*own], "lr": own_rate, "weight_decay": shrink} for own, own_rate, shrink in own_ways]
    optimiser: torch.optim.Optimizer
    if settings.optimiser == "adam":
        if tables:
            optimiser = RowAdam(parameters, tables, rate, settings.epsilon)
        else:
            optimiser = torch.optim.AdamW(groups, lr=rate, eps=settings.epsilon, weight_decay=decay, fused=True)
    elif settings.optimiser == "adagrad":
        optimiser = RowAdagrad(parameters, tables, rate, settings.epsilon)
    elif settings.optimiser == "sgd":
        optimiser = torch.optim.SGD(parameters, lr=rate)
    else:
        raise InputError(f"the optimiser is 'adam', 'adagrad' or 'sgd', not {settings.optimiser!r}.")
    for group in optimiser.param_groups:
        group["initial_lr"] = group["lr"]
    return optimiser


def _random_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_random_state(device: torch.device, state: Tensor) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)


@contextmanager
def _reproducible(device: torch.device, seed: int) -> Iterator[None]:
    """Seed the global random stream and, on the CPU, ask for deterministic kernels; leave both as they were."""
    # Said by the debug mode: `use_deterministic_algorithms` imports PyTorch's compiler first, which takes two seconds.
    deterministic = torch.get_deterministic_debug_mode()
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        try:
            if device.type == "cpu":
                torch.set_deterministic_debug_mode("error")
                torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
            yield
        finally:
            torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
            torch.set_deterministic_debug_mode(deterministic)
