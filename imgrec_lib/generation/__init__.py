"""Pictures of garments that do not exist: a conditional GAN, how good it is, and what a user would like best of it."""

from __future__ import annotations

from imgrec_lib.generation.gan import (
    GAN,
    GANSettings,
    GANTraining,
    Pictures,
    class_pictures,
    load_gan,
    train_gan,
)
from imgrec_lib.generation.options import with_options
from imgrec_lib.generation.preference import Design, PictureScorer, PreferenceSettings, design, users_of_class
from imgrec_lib.generation.quality import (
    frechet_distance,
    generation_quality,
    picture_features,
)
from imgrec_lib.options import check_calls

__all__ = [
    "GAN",
    "Design",
    "GANSettings",
    "GANTraining",
    "PictureScorer",
    "Pictures",
    "PreferenceSettings",
    "class_pictures",
    "design",
    "frechet_distance",
    "generation_quality",
    "load_gan",
    "picture_features",
    "train_gan",
    "users_of_class",
    "with_options",
]

check_calls(__name__)
