"""How good generated pictures are: distance to held-out pictures, and whether a classifier sees the class asked for."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from imgrec_lib.devices import Device
from imgrec_lib.errors import InputError
from imgrec_lib.features import Backbone
from imgrec_lib.features.attributes import fit_heads
from imgrec_lib.generation.gan import GAN, Pictures
from imgrec_lib.options import CountOrNone

AT_ONCE = {"cpu": 16, "cuda": 256}


def picture_features(pixels: np.ndarray, backbone: Backbone, device: Device = "cpu") -> np.ndarray:
    """Pooled features of pictures: (n, size, size, 3) uint8 -> (n, n_features) float64.

    Args:
        pixels: the pictures; the backbone resizes them to its own size.
        backbone: see `build_backbone`.
        device: where it runs; the backbone is moved there.
    """
    device = torch.device(device)
    backbone.to(device).eval()
    with torch.no_grad():
        parts = [
            backbone(torch.from_numpy(np.array(part)).to(device)).double().cpu().numpy()
            for part in np.array_split(pixels, -(-len(pixels) // AT_ONCE.get(device.type, 64)))
        ]
    return np.concatenate(parts)


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Squared Frechet distance between the normal distributions fitted to two sets of vectors (Heusel et al. 2017).

    |m - n|^2 + tr(A + B - 2 (A B)^(1/2)), with means m, n and covariances A, B (divided by the number less one). The
    last trace is the sum of the singular values of X Y^T where A = X^T X and B = Y^T Y, which needs no matrix root,
    and no more vectors than two.

    Of few vectors the covariances are poor and the distance is too large: compare only distances of equal numbers.

    Args:
        first, second: (n, d) and (m, d) floats, at least two each.

    Raises:
        InputError: fewer than two vectors, or of different lengths.
    """
    if min(len(first), len(second)) < 2 or first.shape[1] != second.shape[1]:
        raise InputError(
            "the Frechet distance needs two sets of at least two vectors of one length, "
            f"not of shapes {first.shape} and {second.shape}."
        )
    means, deviations, roots = [], [], []
    for vectors in (first, second):
        values = torch.from_numpy(np.asarray(vectors, np.float64))
        means.append(values.mean(0))
        centred = (values - means[-1]) / (len(values) - 1) ** 0.5
        deviations.append(centred)
        # R of the QR decomposition has the same R^T R, and d rows at most.
        roots.append(torch.linalg.qr(centred, mode="r")[1] if len(centred) > centred.shape[1] else centred)
    shared = torch.linalg.svdvals(roots[0] @ roots[1].T).sum()
    distance = (means[0] - means[1]).square().sum() + sum(x.square().sum() for x in deviations) - 2 * shared
    return distance.item()


def generation_quality(
    gan: GAN,
    training: Pictures,
    held_out: Pictures,
    backbone: Backbone,
    *,
    seed: CountOrNone = 0,
    device: Device = "cpu",
) -> pd.DataFrame:
    """Distance to the held-out pictures and agreement with the class, beside what real pictures get.

    As many pictures as are held out, of the same classes, are generated, and as many are drawn of those trained on.
    The distance of the latter is what a perfect generator would get; grey noise stands at the other end. The
    classifier (`fit_heads`) is fitted to the training pictures' features; its accuracy on the held-out ones says how
    far its agreement can be trusted.

    Args:
        gan: a trained GAN.
        training, held_out: the pictures, see `class_pictures`.
        backbone: gives the features, see `build_backbone`.
        seed: seeds codes and choices.
        device: where the networks run.

    Returns:
        Rows `generated`, `training pictures`, `held-out pictures` and `noise`; columns `distance` (`frechet_distance`
        of the backbone's features to those of the held-out pictures) and `class agreement` (share in which the
        classifier says the class asked for; not for the training pictures, to which it was fitted).
    """
    rng = np.random.default_rng(seed)
    codes = gan.draw(len(held_out), torch.Generator().manual_seed(seed))
    labels = torch.from_numpy(held_out.labels)
    real = picture_features(held_out.pixels, backbone, device)
    fitted = picture_features(training.pixels, backbone, device)
    generated = picture_features(gan.sample(codes, labels), backbone, device)
    noise = picture_features(rng.integers(0, 256, held_out.pixels.shape, dtype=np.uint8), backbone, device)
    labelled = torch.from_numpy(training.labels).unsqueeze(1)
    heads = fit_heads(torch.from_numpy(fitted), labelled, [len(training.names)])
    some = rng.permutation(len(fitted))[: len(real)]

    def agreement(features: np.ndarray) -> float:
        return float((heads.predict(torch.from_numpy(features)).squeeze(1) == labels).float().mean())

    rows = {
        "generated": (frechet_distance(generated, real), agreement(generated)),
        "training pictures": (frechet_distance(fitted[some], real), np.nan),
        "held-out pictures": (0.0, agreement(real)),
        "noise": (frechet_distance(noise, real), agreement(noise)),
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=["distance", "class agreement"])
