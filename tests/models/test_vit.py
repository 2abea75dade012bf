"""The frozen ViT: its maps, what stays frozen, weights by path and checksum, and that no hub is ever asked."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import socket
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import FOUNDATION, equal_tensors, frozen_vit, unet
from safetensors.torch import load_file, save_file
from torch.nn.functional import interpolate

from flexseg.errors import MissingExtra
from flexseg.models import ModelError, Segmentor, build_segmentor

CONFIG = frozen_vit()
TINY, HEAD = CONFIG["backbone"]["config"], CONFIG["decode_head"]
FAMILIES = pytest.mark.parametrize("family", ["dinov2", "vit"])


def build(weights: Any = "random", head: dict[str, Any] = HEAD, **keywords: Any) -> Segmentor:
    keywords.setdefault("config", TINY)
    torch.manual_seed(0)
    return build_segmentor({"backbone": {"type": "FrozenViT", "weights": weights, **keywords}, "decode_head": head})


def image(height: int, width: int, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of weights as the library saves it."""
    build().backbone.transformer.save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# Without the library


def test_without_the_library_the_recipe_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtra, match=r"transformers library.*pip install .*requirements-foundation\.lock"):
        build()


def test_other_trunks_do_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    build_segmentor(unet())


def test_the_extra_lock_adds_exact_pins_and_no_torch() -> None:
    root = Path(__file__).parents[2]

    def pins(name: str) -> dict[str, str]:
        lines = [line for line in (root / name).read_text().splitlines() if line and not line.startswith("#")]
        return dict(line.lower().split("==") for line in lines)

    extra = pins("requirements-foundation.lock")
    assert "transformers" in extra
    assert not extra.keys() & (pins("requirements.lock").keys() | {"torch", "torchvision"})
    if importlib.util.find_spec("transformers"):
        assert {name: metadata.version(name) for name in extra} == extra


# The maps


@FOUNDATION
@FAMILIES
@pytest.mark.parametrize(("height", "width"), [(28, 28), (28, 56), (33, 65), (5, 90), (64, 128)])
def test_maps_lie_at_their_strides_for_any_size(family: str, height: int, width: int) -> None:
    model = build(family=family).eval()
    maps = model.stages(image(height, width))
    wanted = [(2, 32, -(-height // s), -(-width // s)) for s in (4, 8, 16, 32)]
    assert [tuple(x.shape) for x in maps] == wanted
    assert model.predict(image(height, width)).shape == (2, 19, height, width)


@FOUNDATION
@FAMILIES
def test_the_last_map_is_what_the_library_itself_computes(family: str) -> None:
    """Without the class token, laid out row by row, on an oblong grid: positions are interpolated."""
    model = build(family=family, strides=None, out_indices=[0, 2], head=HEAD | {"in_channels": [32] * 2}).eval()
    images = image(28, 56)
    more = {"interpolate_pos_encoding": True} if family == "vit" else {}
    with torch.inference_mode():
        maps = model.stages(images)
        theirs = model.backbone.transformer(images, **more).last_hidden_state
    for row, column in ((0, 0), (3, 7), (2, 1)):
        torch.testing.assert_close(maps[1][:, :, row, column], theirs[:, 1 + 8 * row + column])
    assert not torch.allclose(maps[0], maps[1])


@FOUNDATION
def test_odd_sizes_are_enlarged_to_whole_patches() -> None:
    model = build(strides=None).eval()
    images = image(33, 65)
    with torch.inference_mode():
        maps, again = model.stages(images), model.stages(interpolate(images, (35, 70), mode="bilinear"))
    assert tuple(maps[0].shape) == (2, 32, 5, 10)
    torch.testing.assert_close(maps[-1], again[-1])


@FOUNDATION
def test_scale_adds_patches_but_leaves_the_strides() -> None:
    assert build(strides=None, scale=2.0).eval().stages(image(28, 56))[0].shape[2:] == (8, 16)
    assert build(scale=2.0).eval().stages(image(28, 56))[0].shape[2:] == (7, 14)


@FOUNDATION
@pytest.mark.parametrize(("blocks", "ends"), [(2, (0, 0, 1, 1)), (3, (0, 1, 2, 2)), (12, (2, 5, 8, 11))])
def test_the_maps_are_those_of_equal_parts(blocks: int, ends: tuple[int, ...]) -> None:
    assert build(config=TINY | {"num_hidden_layers": blocks}).backbone.out_indices == ends


@FOUNDATION
def test_chosen_blocks_and_the_last_norm() -> None:
    three = HEAD | {"in_channels": [32] * 3}
    normed = build(out_indices=[0, 1, 2], strides=None, head=three).eval()
    plain = build(out_indices=[0, 1, 2], strides=None, head=three, final_norm=False).eval()
    with torch.inference_mode():
        for with_norm, without in zip(normed.stages(image(28, 28)), plain.stages(image(28, 28)), strict=True):
            norm = plain.backbone.transformer.layernorm
            torch.testing.assert_close(with_norm, norm(without.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))
    shorter = build(out_indices=[0, 1], strides=None, head=HEAD | {"in_channels": [32] * 2})
    assert len(shorter.backbone.blocks) == 2, "a block behind the last map is still there"


# What is frozen


@FOUNDATION
def test_the_transformer_is_frozen_and_in_eval_mode() -> None:
    model = build(config=TINY | {"hidden_dropout_prob": 0.5}).train()
    trainable = {key for key, value in model.named_parameters() if value.requires_grad}
    assert trainable == {key for key, _ in model.named_parameters() if key.startswith("decode_head.")}
    assert model.decode_head.training
    assert not any(module.training for module in model.backbone.transformer.modules())
    first, second = model.stages(image(28, 56)), model.stages(image(28, 56))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not first[0].requires_grad
    assert not first[0].is_inference()


# Weights


@FOUNDATION
def test_weights_come_from_a_folder_or_a_file(folder: Path) -> None:
    digest = sha256(folder / "model.safetensors")
    reference = build(strides=None)
    for weights, config in ((folder, None), (folder, {"hidden_size": 32}), (folder / "model.safetensors", TINY)):
        torch.manual_seed(5)
        model = build(str(weights), sha256=digest, config=config, strides=None)
        assert model.backbone.weights_sha256 == digest
        for key, value in reference.backbone.state_dict().items():
            assert torch.equal(value, model.backbone.state_dict()[key]), key


@FOUNDATION
def test_a_classifier_around_the_transformer_is_left_out(folder: Path) -> None:
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(**(TINY | {"intermediate_size": 64}))
    whole = ViTForImageClassification(config)
    whole.save_pretrained(folder)
    ours = build(str(folder), family="vit", config=None).backbone.state_dict()
    theirs = whole.vit.state_dict()
    assert all(torch.equal(value, ours[f"transformer.{key}"]) for key, value in theirs.items() if "pooler" not in key)


@FOUNDATION
def test_without_a_checksum_the_one_found_is_shown(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    build(str(folder), config=None)
    assert f"sha256 {sha256(folder / 'model.safetensors')}" in capfd.readouterr().err
    build(str(folder), config=None, sha256=sha256(folder / "model.safetensors"))
    assert capfd.readouterr() == ("", ""), "the library reports"


@FOUNDATION
@pytest.mark.parametrize("name", ["weights/none", "weights/none.safetensors", "weights/v1.5"])
def test_weights_that_are_not_there_are_described(name: str) -> None:
    with pytest.raises(MissingExtra, match=r"weights/.*does not exist.*hf download facebook/dinov2-base .*licence"):
        build(name)


@FOUNDATION
def test_another_checksum_is_refused(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"has the SHA-256 [0-9a-f]{64}, not 00ff"):
        build(str(folder), config=None, sha256="00ff")


def rewrite(folder: Path, edit: Any) -> None:
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@FOUNDATION
@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t.pop("layernorm.bias"), r"lacks 1 tensors of a Dinov2Model, among them layernorm\.bias"),
        (
            lambda t: t.update({"layernorm.bias": torch.zeros(7)}),
            r"another size.*layernorm\.bias is \(7,\), not \(32,\)",
        ),
        (lambda t: t.clear() or t.update(x=torch.zeros(1)), r"lacks \d+ tensors"),
        (
            lambda t: t.update({k.replace("r.2.", "r.3."): v.clone() for k, v in t.items() if ".2." in k}),
            r"holds blocks that config does not have: encoder\.layer\.3",
        ),
    ],
    ids=["missing", "size", "other", "deeper"],
)
def test_other_weights_are_refused(folder: Path, edit: Any, message: str) -> None:
    rewrite(folder, edit)
    with pytest.raises(ModelError, match=message):
        build(str(folder), config=None)


@FOUNDATION
def test_damaged_pickled_and_undescribed_weights_are_refused(folder: Path) -> None:
    file = folder / "model.safetensors"
    with pytest.raises(ModelError, match=r"pytorch_model\.bin is no safetensors file.*could run code"):
        build(str(folder / "pytorch_model.bin"))
    with pytest.raises(ModelError, match=r"config\.hidden_size is 48, but .*config\.json says 32"):
        build(str(folder), config={"hidden_size": 48})
    with pytest.raises(ModelError, match=r"type 'dinov2', not of the family 'vit'"):
        build(str(folder), config=None, family="vit")
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(ModelError, match=r"cannot be read .*damaged"):
        build(str(folder), config=None)
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config\.json cannot be read"):
        build(str(folder), config=None)


@FOUNDATION
@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"weights": ""}, r"weights is a folder or a safetensors file, or the word 'random', not ''"),
        ({"weights": None}, r"not None"),
        ({"sha256": "00"}, r"random weights have no sha256"),
        ({"family": "dino"}, r"family 'dino' is unknown.*did you mean 'dinov2'"),
        ({"config": TINY | {"hiden_size": 3}}, r"config has no field 'hiden_size' \(did you mean 'hidden_size'\?\)"),
        ({"config": TINY | {"patch_size": [7, 7]}}, r"patch_size is one whole number"),
        ({"config": TINY | {"hidden_size": "wide"}}, r"config is refused by Dinov2Config"),
        ({"out_indices": [0, 1, 2, 3]}, r"out_indices \[0, 1, 2, 3\] are not blocks: there are 3"),
        ({"out_indices": []}, r"out_indices \[\] are not blocks"),
        ({"strides": [4, 8]}, r"in_channels .* does not match|in_index"),
        ({"strides": [4, 8], "out_indices": [0, 1, 2]}, r"strides \[4, 8\] are not one positive number for each of 3"),
        ({"scale": 0.5}, r"scale is a factor from 1 on"),
    ],
)
def test_a_wrong_description_is_one_clear_error(keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        build(**keywords)


@FOUNDATION
def test_no_socket_is_ever_opened(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    build(str(folder), config=None)
    build(str(folder / "model.safetensors"))
    with pytest.raises(MissingExtra):
        build("facebook/dinov2-base", config=None)
    assert json.loads((folder / "config.json").read_text())["model_type"] == "dinov2"


@FOUNDATION
def test_the_same_seed_gives_the_same_random_weights() -> None:
    assert equal_tensors(build().state_dict(), build().state_dict())
