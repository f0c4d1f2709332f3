"""The cut of any network: what comes before a block runs once, what follows is run and trained from the block's input.

Nothing is known of the network but its modules. It runs as it is, in both halves: the first ends where the block is
reached; in the second the modules before the block are passed over, and the block is handed what the first half gave.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from imgrec_lib.errors import InputError, unknown_name

Run = Callable[[Tensor], Tensor]
PICTURES = 2
"""Pictures of the run that finds out what lies before a block."""


@dataclass(frozen=True)
class Cut:
    """Where a network is cut, by names, so that it holds for a copy of the network too.

    Attributes:
        block: the first module after the cut.
        place: which of the block's arguments carries what the network has seen.
        shape: of one picture's activations at the cut.
        order: their dimensions as they lie in memory, the slowest first.
        passed: the modules before the block that need not run after it, with what they return for `PICTURES` pictures;
            of what depends on the pictures the shape alone ("meta").
        trainable: the modules all of whose weights the output depends on, given the block's input.
        loose: the same of single weights, of modules that also have others.
    """

    block: str
    place: int
    shape: tuple[int, ...]
    order: tuple[int, ...]
    passed: dict[str, Any]
    trainable: tuple[str, ...]
    loose: tuple[str, ...]


class _ReachedError(Exception):
    def __init__(self, activations: Tensor) -> None:
        self.activations = activations


def before(network: nn.Module, cut: Cut, run: Run, x: Tensor) -> Tensor:
    """The activations at the cut of the network's input `x`."""

    def stop(module: nn.Module, args: Any, kwargs: Any) -> None:
        raise _ReachedError(tree_flatten((args, kwargs))[0][cut.place])

    with _hook(network.get_submodule(cut.block), stop):
        try:
            run(x)
        except _ReachedError as reached:
            return reached.activations
    raise AssertionError("a cut is only found where the block runs")


def after(network: nn.Module, cut: Cut, run: Run, x: Tensor, activations: Tensor) -> Tensor:
    """What `run` gives for activations at the cut; of `x`, input of as many pictures, nothing but the shape counts."""

    def hand_over(module: nn.Module, args: Any, kwargs: Any) -> Any:
        leaves, form = tree_flatten((args, kwargs))
        leaves[cut.place] = activations
        return tree_unflatten(leaves, form)

    with ExitStack() as stack:
        for name, output in cut.passed.items():
            module: Any = network.get_submodule(name)
            module.forward = partial(_stand_in, output, activations)
            stack.callback(delattr, module, "forward")
        stack.enter_context(_hook(network.get_submodule(cut.block), hand_over))
        return run(x)


def _stand_in(output: Any, activations: Tensor, *args: Any, **kwargs: Any) -> Any:
    """What a module would return, as far as it does not depend on the pictures; else zeros."""

    def part(x: Any) -> Any:
        if not (isinstance(x, Tensor) and x.is_meta):
            return x
        return activations.new_zeros((x.shape[0] * len(activations) // PICTURES, *x.shape[1:]))

    return tree_map(part, output)


def block_names(network: nn.Module, run: Run, x: Tensor) -> list[str]:
    """The blocks that a picture passes, in their order.

    A block is a member of one of the network's lists that is made of several modules; where the members are stages,
    with a list of blocks of their own, the blocks of these.
    """
    seen: list[str] = []

    def note(name: str, module: nn.Module, args: Any, kwargs: Any) -> None:
        seen.append(name)

    with ExitStack() as stack:
        for name in _listed(network, ""):
            stack.enter_context(_hook(network.get_submodule(name), partial(note, name)))
        with torch.no_grad():
            run(x)
    return list(dict.fromkeys(seen))


def _listed(module: nn.Module, prefix: str) -> Iterator[str]:
    is_list = isinstance(module, nn.Sequential | nn.ModuleList)
    for name, child in module.named_children():
        path = f"{prefix}.{name}" if prefix else name
        has_parts = any(len(list(part.children())) for part in child.children())
        if isinstance(child, nn.Sequential | nn.ModuleList):
            if has_parts:
                yield from _listed(child, path)
        elif not is_list or any(_is_list_of_blocks(child, name) for name in ("blocks", "layers")):
            yield from _listed(child, path)
        elif len(list(child.children())):
            yield path


def _is_list_of_blocks(stage: nn.Module, name: str) -> bool:
    blocks = getattr(stage, name, None)
    return isinstance(blocks, nn.Sequential | nn.ModuleList) and len({type(block) for block in blocks}) == 1


def resolve_block(network: nn.Module, cut: str, run: Run, x: Tensor, what: str) -> str:
    """The name of the block at which to cut.

    Args:
        network, run: the network and how it is run.
        cut: the name of a module, or how many of the last blocks come after the cut.
        x: input of a few pictures.
        what: the network's name, for the sentence.

    Raises:
        InputError: no module has that name, or there are not so many blocks.
    """
    if not cut.isdecimal():
        names = [name for name, _ in network.named_modules() if name]
        if cut not in names:
            blocks = block_names(network, run, x)
            raise unknown_name(f"block of {what}", cut, blocks if len(blocks) < len(names) else names)
        return cut
    blocks = block_names(network, run, x)
    if not 1 <= int(cut) <= len(blocks):
        raise InputError(
            f"the cut of {what} leaves its last 1 to {len(blocks)} blocks to train, not {cut}: give such a number, or "
            "a block's name."
        )
    return blocks[-int(cut)]


@torch.inference_mode(False)
@torch.enable_grad()
def find_cut(network: nn.Module, block: str, run: Run, x: Tensor, what: str) -> Cut:
    """Look at a network once, to cut it before a block.

    Args:
        network: in inference mode.
        block: name of the module before which to cut.
        run: the network's input -> its output.
        x: input of `PICTURES` pictures.
        what: the network's name, for the sentence.

    Raises:
        InputError: the rest of the network reads more of the picture than the block's one input, or the block does not
            run, or more than once.
    """
    weights = list(network.parameters())
    flags = [weight.requires_grad for weight in weights]
    try:
        # Only what depends on the pictures now requires a gradient.
        network.requires_grad_(False)
        place, activations, passed = _passed(network, block, run, x.clone().requires_grad_() * 1, what)
        strides = activations.stride()[1:]
        order = tuple(sorted(range(len(strides)), key=lambda i: -strides[i]))
        found = Cut(block, place, tuple(activations.shape[1:]), order, passed, (), ())
        network.requires_grad_(True)
        output = after(network, found, run, torch.zeros_like(x), activations)
        if not output.requires_grad:
            raise InputError(f"nothing after {block!r} of {what} has weights to train: cut at an earlier block.")
        gradients = torch.autograd.grad(output.sum(), weights, allow_unused=True)
    finally:
        for weight, flag in zip(weights, flags, strict=True):
            weight.requires_grad_(flag)
    learning = {id(weight) for weight, grad in zip(weights, gradients, strict=True) if grad is not None}
    modules, loose = _owners(network, learning, "")
    return replace(found, trainable=tuple(modules), loose=tuple(loose))


def _passed(network: nn.Module, block: str, run: Run, x: Tensor, what: str) -> tuple[int, Tensor, dict[str, Any]]:
    names = {id(module): name for name, module in network.named_modules()}
    open_now: list[str | None] = [None]
    calls: Counter[str] = Counter()
    finished: list[tuple[str, str | None, Any]] = []
    around: list[str | None] = []
    inputs: list[tuple[int, Tensor]] = []
    n_before = 0

    def begin(module: nn.Module, args: Any, kwargs: Any) -> Any:
        nonlocal n_before
        name = names[id(module)]
        calls[name] += 1
        if name != block:
            open_now.append(name)
            return None
        leaves, form = tree_flatten((args, kwargs))
        seen = {i: leaf for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and leaf.requires_grad}
        if len(seen) != 1 or calls[block] > 1:
            raise InputError(
                f"{what} cannot be cut at {block!r}, which takes {len(seen)} inputs or runs more than once: choose "
                "another block."
            )
        ((place, leaf),) = seen.items()
        inputs.append((place, leaf.detach()))
        around.extend(open_now)
        n_before = len(finished)
        open_now.append(name)
        leaves[place] = leaf.detach()
        return tree_unflatten(leaves, form)

    def end(module: nn.Module, args: Any, output: Any) -> None:
        finished.append((str(open_now.pop()), open_now[-1], output))

    with ExitStack() as stack:
        for module in network.modules():
            stack.enter_context(_hook(module, begin))
            handle = module.register_forward_hook(end)
            stack.callback(handle.remove)
        output = run(x)
    if not inputs:
        raise InputError(f"{what} does not run {block!r} as a block on its way to the features: choose another block.")
    if output.requires_grad:
        raise InputError(
            f"{what} cannot be cut at {block!r}: what follows reads the picture past that block; choose another one."
        )
    place, activations = inputs[0]
    if len(activations) != PICTURES:
        raise InputError(f"{what} cannot be cut at {block!r}, which mixes the pictures of a batch: choose another one.")
    passed = {
        name: tree_map(_form, output)
        for name, parent, output in finished[:n_before]
        if parent in around and calls[name] == 1 and _depends(output)
    }
    return place, activations, passed


def _depends(output: Any) -> bool:
    return any(isinstance(x, Tensor) and x.requires_grad for x in tree_flatten(output)[0])


def _form(x: Any) -> Any:
    return torch.empty_like(x, device="meta", requires_grad=False) if isinstance(x, Tensor) and x.requires_grad else x


def _owners(module: nn.Module, learning: set[int], prefix: str) -> tuple[list[str], list[str]]:
    """The outermost modules all of whose weights learn, and those single weights that belong to none of them."""
    modules: list[str] = []
    loose = [prefix + name for name, weight in module.named_parameters(recurse=False) if id(weight) in learning]
    for name, child in module.named_children():
        own = {id(weight) for weight in child.parameters()}
        if own and own <= learning:
            modules.append(prefix + name)
        elif own & learning:
            more, single = _owners(child, learning, f"{prefix}{name}.")
            modules += more
            loose += single
    return modules, loose


@contextmanager
def _hook(module: nn.Module, hook: Callable[..., Any]) -> Iterator[None]:
    handle = module.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
