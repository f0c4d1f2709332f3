"""imgrec: image-based fashion recommendation, in notebooks.

from imgrec_lib import ValidationMetrics, build_model, evaluate, extract_features, fit, load_dataset

dataset = load_dataset("wardrobe")
features = extract_features(dataset.images)
data = dataset.training_data(features)
model = build_model("imgrec-ft", data)
fit(model, data, ValidationMetrics(dataset))
print(evaluate(model, dataset).metrics["exact"]["auc"])

The names of `__all__` are the public interface; `__init__.pyi` says where each lives. A module is imported when one of
its names is first used.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
