"""SAERS: each user attends to the attributes of an item, each attribute seen in its own region of the picture."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imgrec_lib.data.dataset import TrainingData
from imgrec_lib.data.images import tell_of_enlargement
from imgrec_lib.data.sampler import Batch
from imgrec_lib.features import FeatureMaps, attribute_accuracy, attribute_labels, build_backbone
from imgrec_lib.features.attributes import (
    Heads,
    Regions,
    activation_maps,
    find_regions,
    held_out_items,
    strong_part,
    train_heads,
)
from imgrec_lib.features.extraction import fold_batch_norms
from imgrec_lib.files import fingerprint
from imgrec_lib.models.base import (
    ModelCard,
    Profile,
    Range,
    Recommender,
    SeenAttribute,
    TrainSettings,
    distinct,
    dot,
    look_up,
)
from imgrec_lib.models.parts.attention import AttentiveScorer
from imgrec_lib.models.parts.losses import bpr, half_squared_norm, penalties_at
from imgrec_lib.models.parts.projection import Projection
from imgrec_lib.models.parts.settings import HM_WEEK, LARGE_BATCHES
from imgrec_lib.options import Count, CountOrNone, NotNegative, Positive, ShareBelowOne


class SAERS(Recommender):
    """Score: s(u, i) = <p_u, W_g f_i + sum_a alpha_uia e_ia> + b_i, e_ia = W_s g_ia (Hou et al. 2019).

    f_i is what the network sees in the whole picture, g_ia what it sees in the region of attribute a
    (`features.attributes`), and alpha_ui the softmax over attributes of h' tanh(W_u p_u + W_a e_ia + b_a): how much of
    the user's attention each attribute gets. Loss: mean of -ln sigma(s(u,i) - s(u,j)), plus l2 * mean 1/2 |p_u|^2 +
    l2_items * mean(1/2 |z_ui|^2 + 1/2 |z_uj|^2), z being the vector that p meets, + l2_bias * mean(1/2 b_i^2 +
    1/2 b_j^2) + l2_visual * 1/2 (|W_g|^2 + |W_s|^2) + l2_attention * 1/2 (|W_u|^2 + |W_a|^2 + |b_a|^2 + |h|^2).

    A reconstruction: SAERS architecture with substitute attributes. Neither the paper's text nor its code was at hand.
    Known from summaries are the two views of an item, the multi-task attribute network, the attention and the pairwise
    loss; regions, layer shapes and penalties are ours. Where the paper's attribute network is trained on FashionAI's
    and Zappos' labels, this one has linear heads on a frozen ImageNet backbone, trained on the item table's own
    columns. An item has no identity but its offset b_i.

    The network is trained first and then fixed. Its heads are kept in the checkpoint; regions and features are computed
    when first asked for, on the device where the model then is. f and g enter with their catalogue mean taken off,
    which shifts all scores of a user alike and can be undone by b_a, and scaled to length 1 on average.

    Args:
        data: the training data, with images and attributes.
        factors: d.
        attention_units: length of h.
        l2, l2_items, l2_bias, l2_visual, l2_attention: penalty weights.
        at_interactions: training interactions a row where these were found, see `penalties_at`; None: as they are.
        item_bias: whether there is b; without it nothing but the picture tells an item's popularity.
        two_user_vectors: whether the regions meet a user vector t of their own: s(u, i) = <p_u, W_g f_i> + sum_a
            alpha_uia <t_u, e_ia> + b_i. W_u then sees both.
        initial_scale: p, W_g and W_s start normal with this standard deviation; b and b_a at 0, the attention's
            weights with one over the root of their inputs.
        components: principal components of g that are kept, fixed; 0: g as it is.
        attributes: columns of the item table, separated by commas; empty: see `attribute_labels`.
        held_out: share of the items on which the heads are not trained, for `attribute_accuracy`.
        head_penalty: see `fit_heads`.
        threshold: see `boxes_from_maps`.
        backbone, weights: see `build_backbone`; any network with a last feature map, be it of convolutions or of the
            tokens of a transformer's patches.
        size: height and width of the network's input, in pixels; 0: the backbone's own.
        keep: "disk" keeps activations, heads and regions in the cache, in half precision; "memory" and "recompute"
            keep nothing there, see `trunk_activations`.
        progress: show progress bars while the network looks at the pictures.
    """

    head_weight: Tensor
    head_bias: Tensor
    fitted: Tensor
    whole: Tensor | None
    parts: Tensor | None

    def __init__(
        self,
        data: TrainingData,
        *,
        factors: Count = 64,
        attention_units: Count = 16,
        l2: NotNegative = 0.0,
        l2_items: NotNegative = 0.0,
        l2_bias: NotNegative = 0.0,
        l2_visual: NotNegative = 0.0,
        l2_attention: NotNegative = 0.0,
        at_interactions: Positive | None = None,
        item_bias: bool = True,
        two_user_vectors: bool = False,
        initial_scale: NotNegative = 0.01,
        components: CountOrNone = 0,
        attributes: str = "",
        held_out: ShareBelowOne = 0.1,
        head_penalty: NotNegative = 1e-2,
        threshold: ShareBelowOne = 0.2,
        backbone: str = "efficientnet-lite0",
        weights: str = "default",
        size: CountOrNone = 0,
        keep: str = "disk",
        progress: bool = True,
    ) -> None:
        super().__init__()
        assert data.images is not None
        penalties = penalties_at(at_interactions, data.interactions, l2, l2_items, l2_bias, l2_visual, l2_attention)
        self.l2, self.l2_items, self.l2_bias, self.l2_visual, self.l2_attention = penalties
        self.held_out, self.head_penalty, self.threshold = held_out, head_penalty, threshold
        self.labels = attribute_labels(data, [name.strip() for name in attributes.split(",") if name.strip()])
        # The average of the last feature map is what its heads are linear in.
        network = build_backbone(backbone, weights=weights, size=size or None, pooling="avg")
        tell_of_enlargement(data.images, network.size)
        fold_batch_norms(network)
        # In no checkpoint: it is that of the backbone's weights. Always in full precision; `prepare` moves it.
        self._maps = (FeatureMaps(data.images, network, keep, progress=progress),)

        n_attributes, n_features = len(self.labels), network.n_features
        self.register_buffer("fitted", torch.tensor(False))
        self.register_buffer("head_weight", torch.zeros(sum(self.labels.sizes), n_features))
        self.register_buffer("head_bias", torch.zeros(sum(self.labels.sizes)))
        self.whole_view, self.part_view = Projection(n_features), Projection(n_features, components)
        self.register_buffer("whole", None, persistent=False)  # f, (n_items, n_features)
        self.register_buffer("parts", None, persistent=False)  # g, (n_items, n_attributes, components)
        self._regions: Regions | None = None
        self._fitted_as = ""
        self.register_load_state_dict_post_hook(_forget_other_views)

        width = 2 * factors if two_user_vectors else factors  # p, or p and behind it t
        self.users = nn.Parameter(torch.empty(data.n_users, width).normal_(std=initial_scale))
        self.item_bias = nn.Parameter(torch.zeros(data.n_items), requires_grad=item_bias)
        self.whole_projection = nn.Parameter(torch.empty(n_features, factors).normal_(std=initial_scale))
        self.part_projection = nn.Parameter(torch.empty(self.part_view.width, factors).normal_(std=initial_scale))
        self.user_attention = nn.Parameter(torch.empty(width, attention_units).normal_(std=width**-0.5))
        self.part_attention = nn.Parameter(torch.empty(factors, attention_units).normal_(std=factors**-0.5))
        self.attribute_bias = nn.Parameter(torch.zeros(n_attributes, attention_units))
        self.attention_weight = nn.Parameter(torch.empty(attention_units).normal_(std=attention_units**-0.5))

    @property
    def maps(self) -> FeatureMaps:
        """The pictures and the network that looks at them."""
        return self._maps[0]

    @property
    def heads(self) -> Heads:
        """The attribute network's heads."""
        self.prepare()
        return Heads(self.head_weight.float(), self.head_bias.float(), self.labels.sizes)

    @property
    def regions(self) -> Regions:
        """Each item's boxes and predicted values."""
        self.prepare()
        assert self._regions is not None
        return self._regions

    def accuracy(self) -> pd.DataFrame:
        """The heads' accuracy on the items they were not trained on, see `attribute_accuracy`."""
        held_out = held_out_items(self.maps.images, self.held_out) & self.maps.images.present
        return attribute_accuracy(self.labels, self.regions.predicted, held_out)

    @torch.no_grad()
    def prepare(self) -> None:
        """Train the heads, unless they were loaded, and let the network look at the pictures, unless it has."""
        if self._regions is not None:
            return
        self.maps.backbone.to(self.users.device)
        if not self.fitted:
            heads = train_heads(self.maps, self.labels, held_out=self.held_out, penalty=self.head_penalty)
            self.head_weight, self.head_bias = heads.weight.to(self.users.dtype), heads.bias.to(self.users.dtype)
        heads = Heads(self.head_weight.float(), self.head_bias.float(), self.labels.sizes)
        self._regions = find_regions(self.maps, heads, self.threshold)
        whole, parts = (
            torch.tensor(x, device=self.users.device) for x in (self._regions.pooled, self._regions.features)
        )
        if not self.fitted:
            self.whole_view.fit(whole)
            self.part_view.fit(parts.flatten(0, 1))
            self.fitted = torch.ones_like(self.fitted)
        self.whole = self.whole_view(whole)
        self.parts = torch.cat([self.part_view(part) for part in parts.split(8192)])
        self._fitted_as = self.network_fingerprint()

    def network_fingerprint(self) -> str:
        """Digits of what the attribute network has learnt."""
        views = [*self.whole_view.buffers(), *self.part_view.buffers()]
        return fingerprint(*(x.cpu().numpy() for x in (self.fitted, self.head_weight, self.head_bias, *views)))

    def embed(self, items: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Items' vectors: W_g f (n, d), W_s g (n, n_attributes, d), and W_a e + b_a (n, n_attributes, units).

        With two user vectors the first are (n, 2 d) and (n, n_attributes, 2 d), zero where they do not meet a vector.
        """
        self.prepare()
        assert self.whole is not None and self.parts is not None
        parts = self.parts[items] @ self.part_projection
        whole, keys = self.whole[items] @ self.whole_projection, parts @ self.part_attention + self.attribute_bias
        free = self.users.shape[1] - whole.shape[1]
        return F.pad(whole, (0, free)), F.pad(parts, (free, 0)), keys

    def row_tables(self) -> tuple[nn.Parameter, ...]:
        return (self.users,)

    def loss(self, batch: Batch) -> Tensor:
        user = look_up(self.users, batch.users)
        items = batch.items
        # Each item is embedded once, however often the batch names it.
        different, place = distinct(items)
        whole, parts, keys = (
            look_up(x.flatten(1), place).view(*place.shape, *x.shape[1:]) for x in self.embed(different)
        )
        query = user @ self.user_attention
        alpha = (torch.tanh(query[:, None, None] + keys) @ self.attention_weight).softmax(-1)
        vectors = whole + (alpha.unsqueeze(2) @ parts).squeeze(2)
        bias = look_up(self.item_bias, items)
        scores = dot(user, vectors) + bias
        loss = bpr(scores[:, 0], scores[:, 1:]) + self.l2 * half_squared_norm(user)
        if self.l2_items:
            loss = loss + self.l2_items * half_squared_norm(vectors[:, 0], vectors[:, 1:])
        bias = bias.unsqueeze(-1)
        loss = loss + self.l2_bias * half_squared_norm(bias[:, 0], bias[:, 1:])
        visual = self.whole_projection.square().sum() + self.part_projection.square().sum()
        attention = (self.user_attention, self.part_attention, self.attribute_bias, self.attention_weight)
        weights = torch.stack([x.square().sum() for x in attention]).sum()
        return loss + 0.5 * self.l2_visual * visual + 0.5 * self.l2_attention * weights

    @torch.no_grad()
    def contributions(self, users: Tensor, items: Tensor) -> dict[str, Tensor]:
        """Split scores exactly, see `ScoreParts`: the whole picture, each attribute's region, and the offset."""
        whole, regions, alpha = self._views(users, items)
        user = self.users[users]
        regional = alpha * torch.einsum("bd,bcad->bca", user, regions)
        parts = dict(zip(self.labels.names, regional.unbind(2), strict=True))
        return {"whole": torch.einsum("bd,bcd->bc", user, whole), **parts, "offset": self.item_bias[items]}

    @torch.no_grad()
    def attribute_attention(self, users: Tensor, items: Tensor) -> dict[str, Tensor]:
        """See `AttributeAttention`."""
        return dict(zip(self.labels.names, self._views(users, items)[2].unbind(2), strict=True))

    @torch.no_grad()
    def seen_attributes(self, item: int) -> list[SeenAttribute]:
        """See `AttributeRegions`: the box and the activation map of the value that each head predicts."""
        regions, heads, one = self.regions, self.heads, torch.tensor([item], device=self.users.device)
        predicted = torch.tensor(np.array(regions.predicted[[item]]), device=self.users.device)
        maps = activation_maps(heads.weight[heads.rows(predicted)], self.maps.of(one))
        strength = strong_part(maps)[0].cpu().numpy()
        return [
            SeenAttribute(name, values[int(code)], np.asarray(box), strong)
            for name, values, code, box, strong in zip(
                self.labels.names, self.labels.values, predicted[0], regions.boxes[item], strength, strict=True
            )
        ]

    def _views(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of each pair the vectors W_g f (B, C, d) and e (B, C, n_attributes, d), and alpha (B, C, n_attributes)."""
        whole, regions, keys = (x.view(*items.shape, *x.shape[1:]) for x in self.embed(items.flatten()))
        queries = (self.users[users] @ self.user_attention)[:, None, None]
        return whole, regions, (torch.tanh(queries + keys) @ self.attention_weight).softmax(-1)

    @torch.no_grad()
    def scorer(self, times: Tensor | None = None) -> AttentiveScorer:
        n_items = len(self.item_bias)
        whole, parts, keys = (
            torch.cat(part)
            for part in zip(*map(self.embed, torch.arange(n_items, device=self.users.device).split(8192)), strict=True)
        )
        return AttentiveScorer(
            self.users.detach(),
            whole,
            self.item_bias.detach(),
            parts,
            self.users @ self.user_attention,
            keys,
            self.attention_weight.detach(),
        )


def _forget_other_views(model: nn.Module, _: Any) -> None:
    """Drop the regions and features that another network had made, once weights are loaded."""
    assert isinstance(model, SAERS)
    if model._fitted_as != model.network_fingerprint():
        model._regions = model.whole = model.parts = None


CARD = ModelCard(
    name="saers",
    title="SAERS",
    family="visual",
    needs=frozenset({"images", "attributes"}),
    optional=frozenset({"categories"}),
    source="Hou et al. 2019, Explainable Fashion Recommendation: A Semantic Attribute Region Guided Approach",
    fidelity="reconstruction",
    build=SAERS,
    profiles={
        "default": Profile(
            {
                "components": 256,
                "l2": 0.03,
                "l2_items": 0.03,
                "l2_bias": 1e-2,
                "initial_scale": 0.1,
                "at_interactions": HM_WEEK,
            },
            (replace(LARGE_BATCHES, learning_rate=1e-2, epochs=60, patience=2, evaluate_every=5),),
            "the best of three strengths of l2 and l2_items (0.01, 0.03, 0.1) after ten epochs, by the validation AUC "
            "of a fifth of the users of a week of H&M purchases: a short search",
        ),
        "paper": Profile(
            {"factors": 100, "attention_units": 100, "item_bias": False},
            (TrainSettings(learning_rate=1e-4),),
            "no published settings were at hand: d 100, Adam 1e-4, user-uniform triples with one negative and no item "
            "offset are a reading of summaries; the paper's network is backbone='resnet50'",
        ),
    },
    space={
        "factors": [32, 64],
        "learning_rate": Range(1e-3, 3e-2, log=True),
        "l2": Range(1e-3, 1.0, log=True),
        "l2_items": Range(1e-3, 1.0, log=True),
    },
)
