"""The towers of a trained model as ONNX, for those who serve without Python: a picture or a basket becomes a vector."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from imgrec_lib.data.decoding import decode
from imgrec_lib.errors import InputError, tell
from imgrec_lib.extras import require
from imgrec_lib.features import Backbone
from imgrec_lib.files import make_folder, replacing, write_text
from imgrec_lib.models import list_models
from imgrec_lib.models.base import BasketTower, InnerProduct, PictureEmbedding
from imgrec_lib.serving.pictures import backbone_of
from imgrec_lib.serving.trained import Trained

RTOL, ATOL = 1e-3, 1e-4
"""How far a vector of onnxruntime may be from the library's: a number by RTOL of itself, and ATOL of the largest."""

EXAMPLES = 3
"""So many items and users of the catalogue are shown to the exported towers; the tracing sees two of them."""

FREE = {"pixels": ("pictures",), "features": ("items",), "basket": ("customers", "purchases")}
"""By the name of an input, its dimensions of any size."""


def export_towers(trained: Trained, out: Path | str) -> list[Path]:
    """Write what makes vectors of a visual model whose score is an inner product, as ONNX.

    Each file is run by onnxruntime on examples of the catalogue, alone and several at a time, before it is kept.

    Args:
        trained: the model.
        out: a folder. It gets `item.onnx`, which makes the vector of a new item of its picture (`pixels`, the backbone
            included) or, where the run's features come from files, of its features (`features`); and, of a model whose
            users are what they bought, `user.onnx`, which makes the vector of a customer of a basket (`basket`: rows of
            `items.txt`, filled up with -1). The first dimension of every input is free. The metadata of each file say
            how its input is made.

    Returns:
        The files.

    Raises:
        InputError: the extra `onnx` is not installed; the model has no such towers; what was exported computes other
            vectors than the library; the folder cannot be written.

    Example:
        >>> from pathlib import Path
        >>> import onnxruntime
        >>> from imgrec_lib import export_towers, load_dataset, train
        >>> dataset = load_dataset("wardrobe", n_users=40, n_items=50, image_size=32, progress=False)
        >>> trained = train("dvbpr", dataset, size=16, units=8, factors=4, epochs=0, progress=False)
        >>> (path,) = export_towers(trained, Path("towers"))
        >>> tower = onnxruntime.InferenceSession(path)
        >>> [(each.name, each.shape[1:]) for each in tower.get_inputs()]
        [('pixels', [16, 16, 3])]
    """
    require("onnx")
    model, scorer, out = trained.model, trained.scorer, Path(out)
    whole = isinstance(scorer, InnerProduct)
    products = scorer if isinstance(scorer, InnerProduct) else getattr(scorer, "towers", None)
    if not isinstance(model, PictureEmbedding) or products is None:
        able = [name for name, card in list_models().items() if hasattr(card.build, "embed_pictures")]
        raise InputError(
            f"{trained.title} has no network that makes an item's vector of its picture, whose inner product with a "
            f"user's is the score: 'imgrec embed' writes the vectors that a model has; of {', '.join(able)} those can "
            "be exported whose score is such a product."
        )
    about = {"model": trained.title, "score": "the inner product of a user's vector and an item's"}
    if not whole:
        about["score"] += ", and what neighbours of the purchases add, which the towers do not know"
        tell(f"the score of {trained.title} is {about['score']}.")
    make_folder(out)
    width = products.items.shape[1]
    tower, name, examples, made = _item_tower(trained, model, width)
    written = [_write(out / "item.onnx", tower, name, examples, about | made)]
    user = model.basket_tower() if isinstance(model, BasketTower) else None
    if user is not None:
        owned = trained.dataset.train
        baskets = [torch.from_numpy(owned.of(row)) for row in owned.history_lengths.argsort()[-EXAMPLES:]]
        padded = nn.utils.rnn.pad_sequence(baskets, batch_first=True, padding_value=-1)
        about["basket"] = "(customers, purchases) int64: rows of items.txt, counted from 0, filled up with -1"
        written.append(_write(out / "user.onnx", user, "basket", padded, about))
        written.append(out / "items.txt")
        write_text(written[-1], "".join(f"{each}\n" for each in trained.item_ids))
    return written


class _ItemTower(nn.Module):
    """A picture, or its features, -> the items' side of the inner product.

    Args:
        model: what embeds.
        backbone: what makes features of pixels; None where they are given or where the model needs none.
        given: whether the input are features.
        width: size of the vectors; what the model has behind them is for its neighbours.
    """

    def __init__(self, model: PictureEmbedding, backbone: Backbone | None, given: bool, width: int) -> None:
        super().__init__()
        self.model, self.backbone, self.given, self.width = model, backbone, given, width

    def forward(self, shown: Tensor) -> Tensor:
        nothing = torch.empty(0)
        pixels, features = (nothing, shown) if self.given else (shown, nothing)
        if self.backbone is not None:
            features = self.backbone(pixels)
        return self.model.embed_pictures(pixels, features)[:, : self.width]


def _item_tower(trained: Trained, model: PictureEmbedding, width: int) -> tuple[nn.Module, str, Tensor, dict[str, str]]:
    """The tower, its input's name, examples, and what is to be known of that input."""
    looks, images = trained.features, trained.dataset.images
    if looks is not None and trained.run.request.feature_files:
        about = {"features": f"(items, {looks.values.shape[1]}) float32: as in the files of the run"}
        examples = torch.from_numpy(np.array(looks.values[:EXAMPLES], np.float32))
        return _ItemTower(model, None, True, width), "features", examples, about
    assert images is not None  # a model that sees pictures was trained on some
    side = trained.model.picture_size or images.size
    options = {} if trained.finished is None else trained.finished.request.dataset_options
    fit, resample = options.get("image_fit", "squash"), options.get("image_resample", "bicubic")
    resized = f"{side} x {side} pixels"
    if side != images.size:
        resized = f"{images.size} x {images.size} pixels and then, bicubic, to {resized}"
    about = {"pixels": f"(pictures, {side}, {side}, 3) uint8, RGB; resized by Pillow ({fit}, {resample}) to {resized}"}
    backbone = None if looks is None else backbone_of(trained)
    if backbone is not None:
        about |= {f"backbone.{name}": value for name, value in backbone.description.items()}
        about["backbone.resize"] = "inside the graph, from the pixels' size to the backbone's, with antialiasing"
    rows = np.flatnonzero(images.present)[:EXAMPLES]
    examples = torch.from_numpy(np.stack([decode(np.asarray(images.pixels[row]), side) for row in rows]))
    return _ItemTower(model, backbone, False, width), "pixels", examples, about


@torch.no_grad()
def _write(path: Path, tower: nn.Module, name: str, examples: Tensor, about: Mapping[str, str]) -> Path:
    """Trace a tower, compare what onnxruntime computes with what the library does, and keep it.

    Args:
        path: the file.
        tower: one input -> vectors, a row each.
        name: the input's name.
        examples: inputs.
        about: the metadata.
    """
    import onnxruntime
    from onnxscript import optimizer

    tower.eval()
    rows, *columns = (torch.export.Dim(each) for each in FREE[name])
    with warnings.catch_warnings(), _quiet():
        warnings.simplefilter("ignore")
        # A size of 1 would be taken for a constant.
        free = dict(enumerate((rows, *columns)))
        traced = torch.export.export(tower, (examples[:2],), dynamic_shapes=(free,))
        program = torch.onnx.export(traced, input_names=[name], output_names=["vectors"], dynamo=True, verbose=False)
        assert program is not None
        # What belongs to no input, such as the mean of a table of items, is computed once and for all.
        optimizer.optimize(program.model, input_size_limit=2**62)
    program.model.metadata_props.update(about)
    with replacing(path) as temporary:
        program.save(temporary)
        session = onnxruntime.InferenceSession(temporary, providers=["CPUExecutionProvider"])
        for some in (examples, examples[-1:]):
            expected = tower(some).numpy()
            (found,) = session.run(None, {name: some.numpy()})
            if not np.allclose(found, expected, RTOL, ATOL * np.abs(expected).max()):
                raise InputError(
                    f"what was exported for {path} computes other vectors than the library, by up to "
                    f"{np.abs(found - expected).max():.2g}: this network cannot be exported."
                )
    return path


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter tells of its own steps."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [each.level for each in loggers]
    try:
        for each in loggers:
            each.setLevel(logging.ERROR)
        yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)
