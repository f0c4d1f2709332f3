"""Backbones of timm, torchvision, transformers and OpenCLIP: each against what its own library computes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from clips import small_open_clip
from narrow import built, not_none
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from toy import toy_interactions

from imgrec_lib.data.dataset import TrainingData
from imgrec_lib.data.images import ImageStore
from imgrec_lib.errors import InputError
from imgrec_lib.features import build_backbone, extract_features, trunk_activations
from imgrec_lib.features.attributes import FeatureMaps
from imgrec_lib.features.backbones import Backbone
from imgrec_lib.models.imgrec_ete import ImgRecEtE
from imgrec_lib.models.saers import SAERS
from imgrec_lib.request import Request

timm = pytest.importorskip("timm")
SIZE = 64
SMALL = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
TEXT = SMALL | {"vocab_size": 12, "max_position_embeddings": 9, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def pictures(n: int = 3, size: int = SIZE, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (n, size, size, 3), dtype=np.uint8))


def store(n: int = 9, seed: int = 0) -> ImageStore:
    return ImageStore.from_array(pictures(n, SIZE, seed).numpy(), np.arange(n) != 4)


@pytest.fixture(scope="module")
def timm_files(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A weights file, with classifier, of a small model of timm in which every weight and statistic matters."""
    folder = tmp_path_factory.mktemp("timm")

    def file(name: str) -> Path:
        path = folder / f"{name}.safetensors"
        if not path.is_file():
            torch.manual_seed(0)
            network = timm.create_model(name, num_classes=5)
            for module in network.modules():
                if isinstance(module, nn.BatchNorm2d):
                    nn.init.normal_(not_none(module.running_mean), std=0.2)
                    nn.init.uniform_(not_none(module.running_var), 0.5, 1.5)
                    nn.init.uniform_(module.weight, 0.3, 0.8)
            save_file({key: x.contiguous() for key, x in network.state_dict().items()}, path)
        return path

    return file


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders as `save_pretrained` writes them: clip (with a tokenizer), swin, vit; and one of OpenCLIP, open."""
    transformers = pytest.importorskip("transformers", reason="the extra 'hf' is not installed")
    from tokenizers import Tokenizer, models, pre_tokenizers

    root = tmp_path_factory.mktemp("repositories")
    seen = {"image_size": SIZE, "patch_size": 16}
    torch.manual_seed(0)
    clip = transformers.CLIPConfig(text_config=TEXT, vision_config=SMALL | seen, projection_dim=24)
    transformers.CLIPModel(clip).save_pretrained(root / "clip")
    words = {word: i for i, word in enumerate(["<pad>", "<s>", "</s>", "<unk>", "red", "blue", "dress", "shoe"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", model_max_length=9
    ).save_pretrained(root / "clip")
    statement = {"crop_size": {"height": SIZE, "width": SIZE}, "do_center_crop": True, "size": {"shortest_edge": 80},
                 "image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.6, 0.7], "resample": 2}  # fmt: skip
    (root / "clip" / "preprocessor_config.json").write_text(json.dumps(statement))
    (root / "clip" / "README.md").write_text("---\nlicense: mit\n---\n# A model\n")
    swin = transformers.SwinConfig(
        image_size=SIZE, patch_size=4, embed_dim=16, depths=[1, 2], num_heads=[2, 4], window_size=4
    )
    transformers.SwinModel(swin).save_pretrained(root / "swin")
    transformers.ViTForImageClassification(transformers.ViTConfig(**SMALL, **seen)).save_pretrained(root / "vit")
    transformers.BertModel(transformers.BertConfig(**SMALL, vocab_size=12)).save_pretrained(root / "bert")
    return root


@pytest.fixture(scope="module")
def open_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small model of OpenCLIP."""
    return small_open_clip(tmp_path_factory.mktemp("open"), SIZE)


@pytest.fixture
def cases(
    timm_files: Callable[[str], Path], repositories: Path, open_folder: Path
) -> dict[str, tuple[str, Path, Callable[[], tuple[nn.Module, Callable[[Tensor], Tensor]]]]]:
    """By short name: the backbone, its weights, and its library's own network with how it turns input to features."""

    def of_timm(name: str) -> Any:
        def reference() -> Any:
            options = {"img_size": SIZE} if "vit" in name else {}
            network = timm.create_model(name, num_classes=5, checkpoint_path="", **options)
            state = load_file(timm_files(name))
            if "vit" in name:  # made for 160 pixels
                state = timm.models.vision_transformer.checkpoint_filter_fn(state, network)
            network.load_state_dict(state)
            network.reset_classifier(0)
            return network, network

        return f"timm/{name}", timm_files(name), reference

    def of_transformers(folder: str, call: Callable[[Any, Tensor], Tensor]) -> Any:
        def reference() -> Any:
            from transformers import AutoModel

            network = AutoModel.from_pretrained(repositories / folder)
            return network, lambda x: call(network, x)

        return f"hf/someone/{folder}", repositories / folder, reference

    def of_open_clip() -> Any:
        import open_clip

        network = open_clip.create_model(f"local-dir:{open_folder}")
        return network, network.encode_image

    return {
        "cnn": of_timm("test_resnet"),
        "convnext": of_timm("test_convnext"),
        "vit": of_timm("test_vit"),
        "swin": of_transformers("swin", lambda network, x: network(pixel_values=x).pooler_output),
        "clip": of_transformers("clip", lambda network, x: network.get_image_features(pixel_values=x).pooler_output),
        "tokens": of_transformers("vit", lambda network, x: network(pixel_values=x).last_hidden_state[:, 0]),
        "open_clip": ("open_clip/someone/small", open_folder, of_open_clip),
    }


CUTS = {
    "cnn": {"2": "layer3.0", "layer4": "layer4", "layer2.0": "layer2.0"},
    "convnext": {"1": "stages.3.blocks.1", "3": "stages.2.blocks.3", "stages.3": "stages.3"},
    "vit": {"1": "blocks.5", "4": "blocks.2"},
    "swin": {"1": "encoder.layers.1.blocks.1", "2": "encoder.layers.1.blocks.0"},
    "clip": {"": "vision_model.encoder.layers.1", "3": "vision_model.encoder.layers.0"},
    "tokens": {"2": "layers.1"},
    "open_clip": {"1": "visual.transformer.resblocks.2"},
}
"""For each network where to cut, and the block that this is."""


# --- The cut


@pytest.mark.slow
@pytest.mark.parametrize(("case", "cut"), [(case, cut) for case, cuts in CUTS.items() for cut in cuts])
def test_a_cut_network_gives_the_features_and_gradients_of_the_whole(case: str, cut: str, cases: Any) -> None:
    name, weights, reference = cases[case]
    backbone = build_backbone(name, weights=weights, size=SIZE, cut=cut)
    network, features = reference()
    network.eval()
    pixels = pictures()
    expected = features(backbone.preprocess(pixels))
    activations = backbone.trunk(pixels)
    assert backbone.cut.block == CUTS[case][cut] and activations.shape[1:] == backbone.activation_shape
    torch.testing.assert_close(backbone(pixels), expected.detach())

    backbone.unfreeze()
    direction = torch.from_numpy(np.random.default_rng(1).normal(size=expected.shape)).float()
    (backbone.tail(activations) * direction).sum().backward()
    (expected * direction).sum().backward()
    wanted = dict(network.named_parameters())
    tail = {id(parameter) for parameter in backbone.tail_parameters()}
    for key, parameter in backbone.network.named_parameters():
        assert (parameter.grad is not None) == (id(parameter) in tail) == parameter.requires_grad, key
        if parameter.grad is not None:
            scale = float(wanted[key].grad.abs().max())
            torch.testing.assert_close(parameter.grad, wanted[key].grad, rtol=1e-4, atol=1e-5 * scale + 1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["cnn", "convnext", "vit", "swin", "clip", "open_clip"])
def test_the_tail_is_all_that_the_output_depends_on_after_the_block(case: str, cases: Any) -> None:
    """By finite differences: a weight matters to the tail if and only if it is one of the tail's."""
    name, weights, _ = cases[case]
    backbone = build_backbone(name, weights=weights, size=SIZE)
    activations = backbone.trunk(pictures())
    tail = {id(parameter) for parameter in backbone.tail_parameters()}
    with torch.no_grad():
        before = backbone.tail(activations.clone())
        for key, parameter in backbone.network.named_parameters():
            kept = parameter.clone()
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
            changed = not torch.equal(backbone.tail(activations.clone()), before)
            # An attention's bias on its keys moves every logit of a query alike.
            assert changed == (id(parameter) in tail) or "k_proj.bias" in key or "key.bias" in key, key
            parameter.copy_(kept)


def test_batch_norms_of_the_tail_learn_as_in_the_whole_network(cases: Any) -> None:
    name, weights, reference = cases["cnn"]
    backbone = build_backbone(name, weights=weights, size=SIZE, cut="layer3")
    network, _ = reference()
    network.eval()
    for layer in (network.layer3, network.layer4):
        layer.train()
    backbone.unfreeze()
    backbone.train()
    pixels = pictures(5)
    torch.testing.assert_close(backbone.tail(backbone.trunk(pixels)), network(backbone.preprocess(pixels)))
    wanted = dict(network.named_buffers())
    moved = [key for key, x in backbone.network.named_buffers() if not torch.equal(x, load_file(weights)[key])]
    assert moved and all(key.startswith(("layer3", "layer4")) for key in moved)
    for key, buffer in backbone.network.named_buffers():
        torch.testing.assert_close(buffer, wanted[key])


@pytest.mark.parametrize("case", ["cnn", "swin", "clip"])
def test_kept_activations_are_the_trunks(case: str, cases: Any, tmp_path: Path) -> None:
    name, weights, _ = cases[case]
    backbone = build_backbone(name, weights=weights, size=SIZE)
    images = store()
    white = np.where(images.present[:, None, None, None], np.asarray(images.pixels), 255).astype(np.uint8)
    expected = backbone.trunk(torch.from_numpy(white))
    for keep in ("disk", "memory", "recompute"):
        kept = trunk_activations(images, backbone, keep=keep, cache=tmp_path, progress=False)
        torch.testing.assert_close(
            kept.rows(torch.tensor([7, 4, 1])).float(), expected[[7, 4, 1]], rtol=2e-3, atol=2e-3
        )


def test_another_cut_has_activations_of_its_own(cases: Any, tmp_path: Path) -> None:
    name, weights, _ = cases["vit"]
    rows = [
        trunk_activations(store(), build_backbone(name, weights=weights, size=SIZE, cut=cut), cache=tmp_path,
                          progress=False).rows(torch.arange(9))
        for cut in ("1", "2")
    ]  # fmt: skip
    assert not torch.equal(*rows)


def test_where_a_network_cannot_be_cut_is_said(cases: Any) -> None:
    name, weights, _ = cases["cnn"]

    def cut(at: str) -> object:
        return build_backbone(name, weights=weights, size=SIZE, cut=at).cut

    with pytest.raises(InputError, match=r"did you mean 'layer3.0'\?"):
        cut("layer3.")
    with pytest.raises(InputError, match="last 1 to 4 blocks to train, not 9"):
        cut("9")
    with pytest.raises(InputError, match=r"what follows reads the picture past that block"):
        cut("layer2.0.bn1")  # inside a residual block
    with pytest.raises(InputError, match="nothing after 'global_pool'"):
        cut("global_pool")


# --- What the pictures become


def test_size_mean_and_deviation_are_the_librarys(cases: Any) -> None:
    """Of a picture that needs a resize and a crop: as timm's own transformation for inference, but for rounding."""
    name, weights, _ = cases["convnext"]
    config = timm.models.get_pretrained_cfg("test_convnext")
    smooth = Image.fromarray(pictures(1, 12).numpy()[0]).resize((300, 300), Image.Resampling.BICUBIC)
    transform = timm.data.create_transform(
        input_size=config.input_size, mean=config.mean, std=config.std, interpolation=config.interpolation,
        crop_pct=config.crop_pct,
    )  # fmt: skip
    expected = transform(smooth)
    cropped = build_backbone(name, weights=weights, crop=True)
    found = cropped.preprocess(torch.from_numpy(np.array(smooth))[None])[0]
    assert found.shape == expected.shape == (3, 160, 160) and cropped.description["crop"] == f"{config.crop_pct:g}"
    assert float((found - expected).abs().max()) < 2.5 / 255 / min(config.std)
    whole = build_backbone(name, weights=weights)
    assert "crop" not in whole.description and "mean 0.5 0.5 0.5, std 0.5 0.5 0.5" in whole.description["preprocessing"]


def test_preprocessing_of_transformers_is_read_from_its_file(repositories: Path) -> None:
    backbone = build_backbone("hf/someone/clip", weights=repositories / "clip")
    assert (backbone.size, backbone.spec.licence, backbone.spec.source) == (SIZE, "mit", "someone/clip")
    assert backbone.description["preprocessing"] == "mean 0.1 0.2 0.3, std 0.5 0.6 0.7, bilinear"
    white = backbone.preprocess(torch.full((1, SIZE, SIZE, 3), 255, dtype=torch.uint8))[0, :, 0, 0]
    torch.testing.assert_close(white, torch.tensor([0.9 / 0.5, 0.8 / 0.6, 0.7 / 0.7]))
    crop = build_backbone("hf/someone/clip", weights=repositories / "clip", crop=True)
    assert crop.description["crop"] == "0.8"


def test_torchvisions_models_and_their_preset(tmp_path: Path) -> None:
    from torchvision import models

    torch.manual_seed(0)
    network: Any = models.mobilenet_v3_small(num_classes=7).eval()
    torch.save(network.state_dict(), tmp_path / "own.pth")
    backbone = build_backbone("torchvision/mobilenet_v3_small", weights=tmp_path / "own.pth")
    preset = models.MobileNet_V3_Small_Weights.DEFAULT.transforms()
    pixels = pictures(2, 224)
    x = backbone.preprocess(pixels)
    torch.testing.assert_close(x, (pixels.permute(0, 3, 1, 2) / 255 - torch.tensor(preset.mean)[:, None, None])
                               / torch.tensor(preset.std)[:, None, None], rtol=1e-4, atol=1e-5)  # fmt: skip
    with torch.no_grad():
        maps = network.features(x)
        expected = network.classifier[:3](maps.mean((2, 3)))
    torch.testing.assert_close(backbone(pixels), expected)
    torch.testing.assert_close(backbone.tail(backbone.trunk(pixels)), expected)
    torch.testing.assert_close(backbone.maps(backbone.trunk(pixels)), maps)
    average = build_backbone("torchvision/mobilenet_v3_small", weights=tmp_path / "own.pth", pooling="avg")
    torch.testing.assert_close(average(pixels), maps.mean((2, 3)))
    with pytest.raises(InputError, match="unknown weights of torchvision/mobilenet_v3_small 'IMAGENET1K_V2'"):
        build_backbone("torchvision/mobilenet_v3_small", weights="IMAGENET1K_V2")


def test_features_of_a_catalogue_are_the_librarys_and_their_record_says_what_they_are(
    cases: Any, tmp_path: Path
) -> None:
    """Batch norms are folded for speed: the features stay the same."""
    name, weights, reference = cases["cnn"]
    network, features = reference()
    network.eval()
    found = extract_features(store(), backbone=name, weights=weights, cache=tmp_path, progress=False)
    backbone = build_backbone(name, weights=weights)
    with torch.no_grad():
        expected = features(backbone.preprocess(torch.from_numpy(np.array(store().pixels))))
    present = store().present
    np.testing.assert_allclose(found.values[present], expected.numpy()[present], rtol=1e-3, atol=1e-3)
    assert {key: found.description[key] for key in ("backbone", "size", "random", "weights")} == {
        "backbone": "timm/test_resnet", "size": "160", "random": "no", "weights": "test_resnet.safetensors"
    }  # fmt: skip
    other = extract_features(store(), backbone=name, weights="random", cache=tmp_path, progress=False)
    assert other.fingerprint != found.fingerprint and other.random
    assert backbone.description["weights_sha256"] == found.description["weights_sha256"] and backbone.spec.licence


def test_the_last_map_of_a_transformer_is_that_of_its_patches(cases: Any) -> None:
    for case, prefix in (("vit", 1), ("clip", 1), ("swin", 0)):
        name, weights, reference = cases[case]
        backbone = build_backbone(name, weights=weights, size=SIZE, pooling="avg")
        network, _ = reference()
        network.eval()
        x = backbone.preprocess(pictures())
        with torch.no_grad():
            if case == "vit":
                tokens = network.forward_features(x)
            else:
                tokens = getattr(network, "vision_model", network)(pixel_values=x).last_hidden_state
        patches = tokens[:, prefix:]
        side = int(patches.shape[1] ** 0.5)
        maps = backbone.maps(backbone.trunk(pictures()))
        torch.testing.assert_close(maps, patches.transpose(1, 2).reshape(3, -1, side, side))
        torch.testing.assert_close(backbone(pictures()), patches.mean(1))


# --- Words


def test_words_are_embedded_beside_pictures(repositories: Path, open_folder: Path) -> None:
    import open_clip
    from transformers import AutoModel

    sentences = ["red dress", "shoe"]
    clip = build_backbone("hf/someone/clip", weights=repositories / "clip")
    reference = AutoModel.from_pretrained(repositories / "clip").eval()
    ids, mask = torch.tensor([[4, 6], [7, 0]]), torch.tensor([[1, 1], [1, 0]])
    with torch.no_grad():
        expected = reference.get_text_features(input_ids=ids, attention_mask=mask).pooler_output
    torch.testing.assert_close(clip.encode_text(sentences), expected)
    assert expected.shape[1] == clip.n_features

    small = build_backbone("open_clip/someone/small", weights=open_folder)
    network = open_clip.create_model(f"local-dir:{open_folder}").eval()
    with torch.no_grad():
        expected = network.encode_text(open_clip.SimpleTokenizer(context_length=9)(sentences))
    torch.testing.assert_close(small.encode_text(sentences), expected)
    assert not small.encode_text(sentences).requires_grad


def test_who_reads_no_text_says_so(cases: Any) -> None:
    name, weights, _ = cases["vit"]
    with pytest.raises(InputError, match="choose an image-text encoder"):
        build_backbone(name, weights=weights).encode_text(["a shoe"])


# --- Weights


def one_sentence(error: pytest.ExceptionInfo[InputError]) -> str:
    message = str(error.value)
    assert "\n" not in message and message.endswith((".", "?"))
    return message


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Path], None]:
    """An empty cache of the hub, which cannot be reached; the function puts a repository into it."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)

    def put(name: str, folder: Path) -> None:
        place = tmp_path / "hub" / f"models--{name.replace('/', '--')}"
        (place / "refs").mkdir(parents=True)
        (place / "refs" / "main").write_text("0123456789abcdef")
        shutil.copytree(folder, place / "snapshots" / "0123456789abcdef")

    return put


def test_weights_come_from_the_hubs_cache(
    hub_cache: Callable[[str, Path], None],
    timm_files: Callable[[str], Path],
    repositories: Path,
    open_folder: Path,
    tmp_path: Path,
) -> None:
    (tmp_path / "published").mkdir()
    shutil.copy(timm_files("test_vit"), tmp_path / "published" / "model.safetensors")
    hub_cache("timm/test_vit.r160_in1k", tmp_path / "published")
    hub_cache("someone/clip", repositories / "clip")
    hub_cache("someone/small", open_folder)
    for name, weights in (
        ("timm/test_vit.r160_in1k", timm_files("test_vit")),
        ("hf/someone/clip", repositories / "clip"),
        ("open_clip/someone/small", open_folder),
    ):
        cached, local = build_backbone(name), build_backbone(name, weights=weights)
        assert cached.description["weights_sha256"] == local.description["weights_sha256"]
        assert cached.credit == {"licence": cached.spec.licence, "source": cached.spec.source}
        assert torch.equal(cached(pictures()), local(pictures())) and not cached.random
        # Of a file nobody knows the licence, unless a model card lies beside it.
        licence = "mit" if name == "hf/someone/clip" else "not stated"
        assert local.credit == {"licence": licence, "source": weights.name}
    (open_folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    described = build_backbone("open_clip/someone/small", weights=open_folder)
    assert described.credit == {"licence": "apache-2.0", "source": open_folder.name}
    assert build_backbone("hf/someone/clip", weights="random").credit["licence"] == "none: the weights are random"


@pytest.mark.parametrize(
    "name",
    ["timm/test_vit.r160_in1k", "hf/someone/clip", "open_clip/ViT-B-32/laion2b_s34b_b79k", "open_clip/someone/small"],
)
def test_an_unreachable_hub_gets_a_remedy(name: str, hub_cache: Callable[[str, Path], None]) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("open_clip")
    with pytest.raises(InputError) as error:
        build_backbone(name)
    message = one_sentence(error)
    assert "not in the hub's cache" in message and "weights=FOLDER" in message and "efficientnet-lite0" in message


def test_weights_that_lack_something_or_are_anothers_are_refused(
    timm_files: Callable[[str], Path], repositories: Path, open_folder: Path, tmp_path: Path
) -> None:
    """A library that loads what fits would leave the rest as it was drawn."""
    state = load_file(timm_files("test_vit"))
    del state["blocks.3.mlp.fc1.weight"]
    save_file(state, tmp_path / "less.safetensors")
    for weights in (tmp_path / "less.safetensors", timm_files("test_convnext")):
        with pytest.raises(InputError, match=r"is not of timm/test_vit .*name a file of timm/test_vit") as error:
            build_backbone("timm/test_vit", weights=weights)
        one_sentence(error)

    shutil.copytree(repositories / "clip", tmp_path / "clip")
    state = load_file(tmp_path / "clip" / "model.safetensors")
    del state["vision_model.encoder.layers.1.mlp.fc1.weight"]
    save_file(state, tmp_path / "clip" / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"lack 'vision_model.encoder.layers.1.mlp.fc1.weight'") as error:
        build_backbone("hf/someone/clip", weights=tmp_path / "clip")
    one_sentence(error)

    shutil.copytree(open_folder, tmp_path / "open")
    state = load_file(open_folder / "model.safetensors")
    del state["visual.proj"]
    save_file(state, tmp_path / "open" / "model.safetensors")
    with pytest.raises(InputError, match=r"visual\.proj.*check that its weights are of this model") as error:
        build_backbone("open_clip/someone/small", weights=tmp_path / "open")
    one_sentence(error)


class Malicious:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


def test_no_code_in_a_folder_is_run(repositories: Path, open_folder: Path, tmp_path: Path) -> None:
    harm, target = {"weight": Malicious(tmp_path / "executed")}, tmp_path / "executed"
    pickled = tmp_path / "pickled"
    shutil.copytree(repositories / "vit", pickled)
    (pickled / "model.safetensors").unlink()
    torch.save(harm, pickled / "pytorch_model.bin")
    with pytest.raises(InputError, match="with weights as safetensors"):
        build_backbone("hf/someone/vit", weights=pickled)

    code = tmp_path / "code"
    shutil.copytree(repositories / "vit", code)
    config = json.loads((code / "config.json").read_text()) | {
        "model_type": "mine",
        "auto_map": {"AutoConfig": "mine.Config", "AutoModel": "mine.Model"},
    }
    (code / "config.json").write_text(json.dumps(config))
    (code / "mine.py").write_text(f"open({str(target)!r}, 'w')\nclass Config: ...\nclass Model: ...\n")
    with pytest.raises(InputError, match="must be one that transformers knows"):
        build_backbone("hf/someone/mine", weights=code)

    other = tmp_path / "other"
    shutil.copytree(open_folder, other)
    (other / "model.safetensors").unlink()
    torch.save(harm, other / "open_clip_pytorch_model.bin")
    with pytest.raises(InputError, match="no PyTorch file of plain tensors"):
        build_backbone("open_clip/someone/small", weights=other)
    torch.save(harm, tmp_path / "timm.pth")
    with pytest.raises(InputError, match="no PyTorch file of plain tensors"):
        build_backbone("timm/test_vit", weights=tmp_path / "timm.pth")
    assert not target.exists()


def test_a_classifier_without_pooling_gives_its_first_token(cases: Any) -> None:
    """The pooling that its class of network would have is in no file: drawn at random, it must not be used."""
    name, weights, reference = cases["tokens"]
    _, features = reference()
    backbone = build_backbone(name, weights=weights)
    with torch.no_grad():
        torch.testing.assert_close(backbone(pictures()), features(backbone.preprocess(pictures())))
    assert not any(key.startswith("pooler") for key in backbone.cut.trainable)


def test_random_weights_follow_the_seed() -> None:
    torch.manual_seed(1)
    undisturbed = torch.rand(1)
    torch.manual_seed(1)
    first, again, other = (build_backbone("timm/test_vit", weights="random", seed=seed) for seed in (0, 0, 5))
    assert torch.equal(torch.rand(1), undisturbed) and first.random
    assert first.description["weights_sha256"] == again.description["weights_sha256"]
    assert first.description["weights_sha256"] != other.description["weights_sha256"]


# --- Names


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("timm/convnext_tinny", "did you mean 'timm/convnext_tiny'?"),
        ("timm/convnext_tiny.fb_in22", "did you mean 'fb_in22k'?"),
        ("torchvision/swim_t", "did you mean 'torchvision/swin_t'?"),
        ("hf/clip", "write hf/<owner>/<model>"),
        ("convnext_tiny", "did you mean 'timm/convnext_tiny'?"),
        ("mynet", "timm/<model>"),
        ("tim/resnet18", "did you mean 'timm/resnet18'?"),
        ("open_clip/ViT-B-33", "did you mean 'open_clip/ViT-B-32"),
        ("open_clip/ViT-B-32/laion2b_s34b_b79", "did you mean 'laion2b_s34b_b79k'?"),
    ],
)
def test_a_request_refuses_unknown_names_before_it_reads_data(name: str, sentence: str) -> None:
    pytest.importorskip("open_clip")
    with pytest.raises(InputError) as error:
        Request("vbpr", backbone=name, dataset="table", root="nowhere").check()
    assert sentence in one_sentence(error)


def test_what_reads_no_pictures_or_is_not_installed_is_refused(
    repositories: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="hf/someone/bert reads no pictures"):
        build_backbone("hf/someone/bert", weights=repositories / "bert")
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(InputError, match=r"transformers is not installed: .*pip install 'imgrec\[hf\]'"):
        build_backbone("hf/someone/clip", weights=repositories / "clip")


# --- The models that look at pictures


def test_imgrec_ete_trains_the_tail_of_any_backbone_and_keeps_it(cases: Any) -> None:
    """A CLIP, whose projection stands beside the modules before the cut, included."""
    data = TrainingData(toy_interactions(13, 9), images=store())
    for case in ("convnext", "open_clip"):
        name, weights, _ = cases[case]

        def build(name: str = name, weights: Path = weights) -> ImgRecEtE:
            return built(
                ImgRecEtE, "imgrec-ete", data, factors=4, units=6, keep="memory", size=SIZE, backbone=name,
                weights=str(weights), cut="1",
            )  # fmt: skip

        model = build()
        model.start_phase(1)
        optimiser = torch.optim.SGD(model.backbone.tail_parameters(), 0.1)
        before = model.scorer().block(torch.arange(13)).clone()
        model.train()
        model.visual(torch.tensor([[0, 3], [5, 1]])).square().sum().backward()
        assert all(parameter.grad is not None for parameter in model.backbone.tail_parameters())
        optimiser.step()
        model.eval()
        after = model.scorer().block(torch.arange(13))
        assert not torch.allclose(after, before)
        again = build()
        again.load_state_dict(model.state_dict())
        again.start_phase(1)
        torch.testing.assert_close(again.eval().scorer().block(torch.arange(13)), after)


@pytest.mark.slow
def test_saers_takes_what_has_a_last_feature_map(cases: Any, tmp_path: Path) -> None:
    name, weights, reference = cases["vit"]
    backbone = build_backbone(name, weights=weights, size=SIZE, pooling="avg")
    maps = FeatureMaps(store(), backbone, "memory", progress=False)
    network, _ = reference()
    network.eval()
    with torch.no_grad():
        tokens = network.forward_features(backbone.preprocess(torch.from_numpy(np.array(store().pixels[:2]))))
    expected = tokens[:, 1:].transpose(1, 2).reshape(2, -1, 4, 4)
    torch.testing.assert_close(maps.of(torch.arange(2)), expected, rtol=2e-2, atol=2e-2)

    import pandas as pd

    table = pd.DataFrame({"colour": ["red", "blue", "red"] * 3})
    data = TrainingData(toy_interactions(13, 9), images=store(), attributes=table)
    options: dict[str, Any] = {"factors": 4, "attributes": "colour", "keep": "memory", "progress": False}
    model = built(SAERS, "saers", data, backbone=name, weights=str(weights), size=SIZE, components=0, **options)
    assert model.scorer().block(torch.arange(13)).isfinite().all()
    blind = SimpleNamespace(backbone="torchvision/densenet121", weights="random")
    with pytest.raises(InputError, match="does not say where its last feature map is"):
        built(SAERS, "saers", data, size=32, components=0, **vars(blind), **options)


def test_backbones_are_built_frozen(cases: Any) -> None:
    name, weights, _ = cases["clip"]
    backbone = build_backbone(name, weights=weights)
    assert isinstance(backbone, Backbone) and not backbone.training
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    assert not backbone.trunk(pictures()).requires_grad
