"""The network that sees the pictures, as a part of a model that trains its last layers."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor, nn

from imgrec_lib.data.images import ImageStore
from imgrec_lib.features import Activations, Backbone, trunk_activations
from imgrec_lib.models.base import Recommender


class TrainedEncoder(Recommender):
    """A model that sees pictures by a backbone of its own, whose tail it may train.

    The trunk before the tail stays in inference mode for ever and looks at each picture once (`trunk_activations`).
    A checkpoint holds the tail; the trunk is that of the backbone's weights. A subclass's constructor calls
    `take_backbone`.
    """

    def take_backbone(
        self, network: Backbone, images: ImageStore | None, *, keep: str, batch_statistics: bool = False
    ) -> None:
        """See by this network from now on.

        Args:
            network: the backbone, frozen.
            images: the catalogue's pictures.
            keep: see `trunk_activations`.
            batch_statistics: whether the tail's batch norms use those of the batch while the tail is trained.
        """
        # Only the tail is registered: the trunk is neither a parameter nor in a checkpoint, and is moved in `_apply`.
        self._backbone = (network,)
        tail, loose = network.cut.trainable, network.cut.loose
        self.tail = nn.ModuleDict({_key(name): network.network.get_submodule(name) for name in tail})
        # Weights after the cut that stand beside modules before it, such as the projection of a CLIP.
        self.tail_weights = nn.ParameterDict({_key(name): network.network.get_parameter(name) for name in loose})
        self.images, self.keep, self.batch_statistics = images, keep, batch_statistics

    @property
    def backbone(self) -> Backbone:
        """The network; its tail is this model's `tail`."""
        return self._backbone[0]

    @property
    def end_to_end(self) -> bool:
        """Whether the tail is being trained, or was."""
        return next(self.tail.parameters()).requires_grad

    @cached_property
    def activations(self) -> Activations:
        """The activations at the cut; computed when first asked for, on the device where the model then is."""
        assert self.images is not None
        return trunk_activations(self.images, self.backbone, keep=self.keep)

    def pooled(self, items: Tensor) -> Tensor:
        """f of the given items, with the tail as it is: (B,) int64 -> (B, n_features).

        In training mode they are one batch, with its statistics; in evaluation they pass in parts of bounded memory.
        """
        device, dtype = items.device, next(self.tail.parameters()).dtype
        parts = (items,) if self.training and self.end_to_end else items.split(32 if device.type == "cpu" else 512)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            found = [self.backbone.tail(self.activations.rows(part).to(dtype)) for part in parts]
        return torch.cat(found).to(dtype)

    def free_tail(self, free: bool) -> None:
        """Let the tail be trained from now on, or keep it as it is."""
        for name, module in zip(self.backbone.cut.trainable, self.tail.values(), strict=True):
            # A trainer on several GPUs has replaced these modules by ones whose batch norms synchronise.
            self.backbone.network.set_submodule(name, module)
        self.backbone.requires_grad_(False)
        if free:
            self.backbone.unfreeze()

    def train(self, mode: bool = True) -> Self:
        """Training or inference mode; the network's fixed statistics stay fixed."""
        super().train(mode)
        self.backbone.train(mode and self.batch_statistics)
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        self.backbone._apply(fn, recurse)
        return super()._apply(fn, recurse)


def _key(name: str) -> str:
    return name.replace(".", "_")
