"""The public interface: each name, and the module that it comes from."""

from .cache import list_cache, prune_cache
from .data import DatasetCard, list_datasets, load_dataset, register_dataset
from .data.dataset import Dataset
from .errors import InputError
from .evaluation import ValidationAUC, ValidationMetrics, evaluate
from .features import Features, extract_features, item_features, list_backbones, read_features
from .models import build_model, list_models, register_model
from .models.base import ModelCard, Recommender
from .request import Request
from .runs import Run, find_runs, load_inputs, load_model, open_run, train_run
from .serving import (
    Trained,
    compare_lists,
    evaluate_lists,
    export_towers,
    open_trained,
    recommend,
    similar_to_picture,
    train,
    with_pictures,
)
from .training import fit

__version__: str

__all__ = [
    "Dataset",
    "DatasetCard",
    "Features",
    "InputError",
    "ModelCard",
    "Recommender",
    "Request",
    "Run",
    "Trained",
    "ValidationAUC",
    "ValidationMetrics",
    "build_model",
    "compare_lists",
    "evaluate",
    "evaluate_lists",
    "export_towers",
    "extract_features",
    "find_runs",
    "fit",
    "item_features",
    "list_backbones",
    "list_cache",
    "list_datasets",
    "list_models",
    "load_dataset",
    "load_inputs",
    "load_model",
    "open_run",
    "open_trained",
    "prune_cache",
    "read_features",
    "recommend",
    "register_dataset",
    "register_model",
    "similar_to_picture",
    "train",
    "train_run",
    "with_pictures",
]
