"""Which backbones there are: two with their own modules here, and those of four libraries by name."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from imgrec_lib.errors import unknown_name
from imgrec_lib.features.backbones import lite0, resnet50
from imgrec_lib.features.backbones.spec import BackboneSpec

BACKBONES = {"efficientnet-lite0": lite0, "resnet50": resnet50}
FAMILIES = {
    "timm": ("timm/<model>", "any model of timm"),
    "torchvision": ("torchvision/<model>", "any classifier of torchvision"),
    "hf": ("hf/<owner>/<model>", "any encoder of images, or of images and text, of Hugging Face transformers"),
    "open_clip": ("open_clip/<model>/<weights>", "any model of OpenCLIP; on the hub: open_clip/<owner>/<model>"),
}
"""The libraries whose models are backbones: the form of their names, and which they are."""

_MODULES = {"hf": "transformers_models"}


def list_backbones() -> dict[str, BackboneSpec]:
    """The backbones with names of their own, the default first; those of libraries are named as `FAMILIES` says.

    Example:
        >>> from imgrec_lib import list_backbones
        >>> next(iter(list_backbones()))
        'efficientnet-lite0'
    """
    return {name: module.SPEC for name, module in BACKBONES.items()}


def family(name: str) -> Any:
    """The module that opens a backbone.

    Raises:
        InputError: no library's names begin like this one.
    """
    if name in BACKBONES:
        return BACKBONES[name]
    prefix, slash, rest = name.partition("/")
    if slash and prefix not in FAMILIES:
        raise unknown_name("backbone", name, [f"{known}/{rest}" for known in FAMILIES])
    if not rest:
        import timm

        also = [f"timm/{name}"] if timm.is_model(name.partition(".")[0]) else []
        raise unknown_name("backbone", name, [*BACKBONES, *also, *(form for form, _ in FAMILIES.values())])
    return import_module(f"imgrec_lib.features.backbones.{_MODULES.get(prefix, f'{prefix}_models')}")


def check_backbone(name: str) -> None:
    """Refuse a backbone that there is not, without opening one.

    Raises:
        InputError: with the nearest name; or the library is not installed.
    """
    module = family(name)
    if name not in BACKBONES:
        module.check_name(name)
