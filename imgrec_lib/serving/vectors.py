"""The vectors of users and items as files, for a search engine or a feature store."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pandas as pd
from safetensors.numpy import save_file
from torch import Tensor

from imgrec_lib.errors import InputError, unknown_name
from imgrec_lib.files import make_folder, replacing, write_text
from imgrec_lib.models.base import InnerProduct
from imgrec_lib.serving.ids import write_table
from imgrec_lib.serving.trained import Trained

FORMATS = ("parquet", "safetensors")


def write_vectors(trained: Trained, out: Path, *, form: str = "parquet", index: bool = False) -> list[Path]:
    """Write the two tables of a latent factor model; the score of a user for an item is their inner product.

    Args:
        trained: the model.
        out: a folder. It gets `users.parquet` and `items.parquet`, each with the columns `id` and `vector` (float32);
            or `vectors.safetensors` with the tensors `users` and `items`, and `users.txt` and `items.txt` with an id a
            line, in the order of the rows.
        form: one of `FORMATS`.
        index: also write `items.faiss`, an exact index for inner products; its rows are those of the item vectors.

    Returns:
        The files.

    Raises:
        InputError: the model's score is no inner product, an unknown format, or the folder cannot be written.
    """
    if form not in FORMATS:
        raise unknown_name("format of vectors", form, FORMATS)
    if not isinstance(trained.scorer, InnerProduct):
        raise InputError(f"the score of {trained.title} is no inner product of two vectors: there is nothing to write.")
    out = Path(out)
    make_folder(out)
    vectors = {
        "users": (trained.dataset.user_ids.astype(str), _array(trained.scorer.users)),
        "items": (trained.item_ids, _array(trained.scorer.items)),
    }
    written = []
    for name, (ids, values) in vectors.items():
        if form == "parquet":
            written.append(out / f"{name}.parquet")
            write_table(pd.DataFrame({"id": ids, "vector": list(values)}), written[-1])
        else:
            written.append(out / f"{name}.txt")
            write_text(written[-1], "".join(f"{each}\n" for each in ids))
    if form == "safetensors":
        written.append(out / "vectors.safetensors")
        with replacing(written[-1]) as temporary:
            save_file({name: values for name, (_, values) in vectors.items()}, temporary)
    if index:
        items = vectors["items"][1]
        flat = faiss.IndexFlatIP(items.shape[1])
        flat.add(items)
        written.append(out / "items.faiss")
        with replacing(written[-1]) as temporary:
            faiss.write_index(flat, str(temporary))
    return written


def _array(values: Tensor) -> np.ndarray:
    return np.ascontiguousarray(values.detach().cpu().numpy(), dtype=np.float32)
