"""imgrec: image-based fashion recommendation, in notebooks.

from imgrec_lib import ValidationAUC, build_model, evaluate, extract_features, fit, load_dataset

dataset = load_dataset("wardrobe")
features = extract_features(dataset.images)
data = dataset.training_data(features)
model = build_model("imgrec-ft", data)
fit(model, data, ValidationAUC(dataset))
print(evaluate(model, dataset).metrics["exact"]["auc"])
"""

__version__ = "0.1.0"

from imgrec_lib.data import list_datasets, load_dataset
from imgrec_lib.errors import InputError
from imgrec_lib.evaluation import ValidationAUC, ValidationMetrics, evaluate
from imgrec_lib.features import extract_features, list_backbones
from imgrec_lib.models import build_model, list_models
from imgrec_lib.runs import find_runs, load_model, open_run, train_run
from imgrec_lib.serving import Trained, open_trained, recommend, train
from imgrec_lib.training import fit

__all__ = [
    "InputError",
    "Trained",
    "ValidationAUC",
    "ValidationMetrics",
    "build_model",
    "evaluate",
    "extract_features",
    "find_runs",
    "fit",
    "list_backbones",
    "list_datasets",
    "list_models",
    "load_dataset",
    "load_model",
    "open_run",
    "open_trained",
    "recommend",
    "train",
    "train_run",
]
