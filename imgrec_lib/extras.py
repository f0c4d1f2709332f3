"""What is installed only when asked for, and the sentence for what is missing."""

from __future__ import annotations

from importlib.util import find_spec

from imgrec_lib.errors import InputError

_REPORT = ("jinja2", "latex2mathml", "markupsafe", "matplotlib", "nbconvert", "nbformat")

EXTRAS: dict[str, tuple[str, ...]] = {
    "report": _REPORT,
    "notebooks": (*_REPORT, "anywidget", "ipykernel", "ipywidgets", "jupyterlab", "papermill", "pydeck", "tornado"),
    "dask": ("distributed",),
    "umap": ("umap",),
    "hf": ("transformers",),
    "open-clip": ("open_clip",),
    "sentences": ("sentence_transformers",),
    "mlflow": ("mlflow",),
    "tensorboard": ("tensorboard",),
    "wandb": ("wandb",),
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
    "serve": ("fastapi", "fastapi_offline", "uvicorn", "python_multipart"),
}
"""The modules that each extra of pyproject.toml brings."""


def require(extra: str) -> None:
    """Refuse to go on where an extra was not installed.

    Args:
        extra: a key of `EXTRAS`.

    Raises:
        InputError: says what is missing, and how to install it.
    """
    missing = [module for module in EXTRAS[extra] if find_spec(module) is None]
    if missing:
        raise InputError(
            f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed: install what is missing with "
            f"pip install 'imgrec[{extra}]'."
        )
