"""Trained backbones: every layout of a public file gives mmseg's backbone, and a file that is another one is named."""

from __future__ import annotations

import copy
import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import equal_tensors, mit, resnet
from safetensors.torch import save_file
from torch import Tensor, nn

from flexseg.errors import MissingExtra, RunError
from flexseg.files import file_digest
from flexseg.models import ModelError, build_segmentor
from flexseg.models.names import seems_to_be
from flexseg.models.weights import load_weights

TRUNKS = {"mit": mit(num_layers=[1, 2, 1, 1]), "resnet": resnet()}


def trunk(kind: str, seed: int = 0) -> dict[str, Any]:
    torch.manual_seed(seed)
    return TRUNKS[kind]


def backbone(kind: str, seed: int = 0) -> nn.Module:
    return build_segmentor(trunk(kind, seed)).backbone


def by_segformer(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A MiT of mmseg's under the names, and in the shapes, of SegFormer's authors; written for this test alone."""
    renamed = {}
    for key, value in state.items():
        _, stage, part, *rest = key.split(".")
        number = int(stage) + 1
        if part == "0":
            renamed[f"patch_embed{number}.{rest[0].replace('projection', 'proj')}.{rest[1]}"] = value
        elif part == "2":
            renamed[f"norm{number}.{rest[0]}"] = value
        else:
            block, inner = f"block{number}.{rest[0]}", ".".join(rest[1:])
            if "in_proj" in inner:
                width, kind = len(value) // 3, inner.rpartition("_")[2]
                renamed[f"{block}.attn.q.{kind}"], renamed[f"{block}.attn.kv.{kind}"] = value[:width], value[width:]
                continue
            flat = value[:, :, 0, 0] if inner.endswith(("ffn.layers.0.weight", "ffn.layers.4.weight")) else value
            for ours, theirs in {
                "attn.attn.out_proj": "attn.proj",
                "ffn.layers.0": "mlp.fc1",
                "ffn.layers.1": "mlp.dwconv.dwconv",
                "ffn.layers.4": "mlp.fc2",
            }.items():
                inner = inner.replace(ours, theirs)
            renamed[f"{block}.{inner}"] = flat
    return renamed


LAYOUTS = {
    "bare": lambda state: state,
    "in a state_dict": lambda state: {"meta": {"epoch": 3}, "state_dict": state},
    "a whole model": lambda state: {
        "state_dict": {f"backbone.{key}": value for key, value in state.items()} | {"decode_head.x": torch.ones(1)}
    },
    "with a classifier": lambda state: state | {"head.weight": torch.ones(5, 8), "head.bias": torch.ones(5)},
}


@pytest.mark.parametrize("kind", TRUNKS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_pth_files(kind: str, layout: str, tmp_path: Path) -> None:
    theirs, ours = backbone(kind, seed=1), backbone(kind, seed=2)
    path = tmp_path / "weights.pth"
    torch.save(LAYOUTS[layout](theirs.state_dict()), path)
    load_weights(ours, {"file": str(path), "sha256": file_digest(path)[:8].upper(), "licence": "MIT"})
    assert equal_tensors(theirs.state_dict(), ours.state_dict())
    assert (ours.weights_sha256, ours.weights_licence) == (file_digest(path), "MIT")


def test_segformers_own_names(tmp_path: Path) -> None:
    theirs, ours = backbone("mit", seed=1), backbone("mit", seed=2)
    renamed = by_segformer(theirs.state_dict())
    named = {"patch_embed1.proj.weight", "block2.1.attn.kv.bias", "block1.0.attn.sr.weight", "norm4.bias"}
    assert named <= set(renamed)
    assert not set(renamed) & set(theirs.state_dict())
    path = tmp_path / "mit.pth"
    torch.save(renamed | {"head.weight": torch.ones(5, 64), "head.bias": torch.ones(5)}, path)
    load_weights(ours, {"file": str(path), "sha256": file_digest(path)})
    images = torch.randn(1, 3, 64, 64)
    theirs.eval(), ours.eval()
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(theirs(images), ours(images), strict=True))


def test_a_trunk_starts_from_its_weights_or_does_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = backbone("resnet", seed=1).state_dict()
    counters = {key for key in theirs if key.endswith("num_batches_tracked")}
    (tmp_path / "weights").mkdir()
    path = tmp_path / "weights" / "resnet.safetensors"
    save_file({key: value for key, value in theirs.items() if key not in counters}, path)
    monkeypatch.chdir(tmp_path)
    config = trunk("resnet", seed=2) | {"weights": {"file": "resnet.safetensors", "sha256": file_digest(path)}}
    before = copy.deepcopy(config)
    with_weights = build_segmentor(config)
    assert config == before
    assert with_weights.training
    assert equal_tensors(with_weights.backbone.state_dict(), theirs)
    torch.manual_seed(2)
    fresh = build_segmentor(config, pretrained=False)
    assert torch.equal(fresh.decode_head.conv_seg.weight, with_weights.decode_head.conv_seg.weight)
    assert not torch.equal(fresh.backbone.state_dict()["stem.0.weight"], theirs["stem.0.weight"])
    assert not hasattr(fresh.backbone, "weights_sha256")
    path.unlink()
    build_segmentor(config, pretrained=False)
    with pytest.raises(MissingExtra, match=r"no weights at weights/resnet\.safetensors: put the file with the SHA-256"):
        build_segmentor(config)


def test_the_environment_says_where_weights_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(backbone("mit", seed=1).state_dict(), tmp_path / "mit.pth")
    described = {"file": "mit.pth", "sha256": file_digest(tmp_path / "mit.pth")}
    with pytest.raises(MissingExtra, match="FLEXSEG_WEIGHTS"):
        load_weights(backbone("mit"), described)
    monkeypatch.setenv("FLEXSEG_WEIGHTS", str(tmp_path))
    load_weights(backbone("mit"), described)
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    monkeypatch.setenv("FLEXSEG_WEIGHTS", f"~/{tmp_path.name}")
    load_weights(backbone("mit"), described)


# Downloads


def test_a_missing_file_is_downloaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = tmp_path / "there.pth"
    torch.save(backbone("mit", seed=1).state_dict(), there)
    monkeypatch.setenv("FLEXSEG_WEIGHTS", str(tmp_path / "here"))
    described = {"file": "sub/mit.pth", "sha256": file_digest(there)[:8], "url": there.as_uri()}
    ours = backbone("mit", seed=2)
    load_weights(ours, described)
    assert file_digest(tmp_path / "here" / "sub" / "mit.pth") == ours.weights_sha256
    there.unlink()
    load_weights(backbone("mit"), described)


def test_a_download_that_is_another_file_never_appears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "there.pth").write_bytes(b"an error page")
    monkeypatch.setenv("FLEXSEG_WEIGHTS", str(tmp_path / "here"))
    url = (tmp_path / "there.pth").as_uri()
    with pytest.raises(
        RunError, match=rf"{url} has the SHA-256 {hashlib.sha256(b'an error page').hexdigest()}, not 0{{8}}"
    ):
        load_weights(backbone("mit"), {"file": "mit.pth", "sha256": "0" * 8, "url": url})
    assert list((tmp_path / "here").iterdir()) == []


def test_a_download_that_fails_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    url = (tmp_path / "nowhere.pth").as_uri()
    described = {"file": "mit.pth", "sha256": "0" * 8, "url": url, "licence": "research only"}
    with pytest.raises(MissingExtra, match=rf"cannot be downloaded .*`curl -L -o mit\.pth {url}` \(research only\)"):
        load_weights(backbone("mit"), described)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"file": "../methods/x.py"}, r"'\.\./methods/x\.py' is no \.safetensors, \.pth or \.pt"),
        ({"file": "../x.pth"}, "a download goes below weights/"),
        ({"file": "/tmp/x.pth"}, "a download goes below weights/"),
        ({"file": "~/x.pth"}, "a download goes below weights/"),
        ({"url": "no address"}, "is not an address"),
        ({"url": "ftp://x/y.pth"}, "is not an address"),
        ({"sha256": "zzzzzzzz"}, "is no SHA-256"),
    ],
)
def test_a_download_goes_nowhere_else(changes: dict[str, str], message: str, tmp_path: Path) -> None:
    (tmp_path / "there.pth").write_bytes(b"print('planted')")
    described = {"file": "mit.pth", "sha256": "0" * 8, "url": (tmp_path / "there.pth").as_uri()} | changes
    with pytest.raises(ModelError, match=message):
        load_weights(backbone("mit"), described)


# Files that are something else


@pytest.mark.parametrize(
    ("kind", "edit", "message"),
    [
        (
            "mit",
            lambda s: s.pop("layers.3.2.bias"),
            r"MixVisionTransformer: it lacks 1 \(layers\.3\.2\.bias\) of \d+ tensors\. .* a MiT \(width 8, 1-2-1-1",
        ),
        (
            "mit",
            lambda s: s.update({"layers.3.2.bias": torch.ones(7)}),
            r"MixVisionTransformer: 1 \(layers\.3\.2\.bias is \(7,\), not \(64,\)\) of another size",
        ),
        (
            "mit",
            lambda s: s.update({"layers.0.1.1.norm1.weight": torch.ones(8)}),
            r"it holds 1 \(layers\.0\.1\.1\.norm1\.weight\) tensors that this backbone has not.* 2-2-1-1 blocks",
        ),
        (
            "resnet",
            lambda s: None,
            r"it lacks \d+ \(layers\.0.*, …\) of \d+ .*holds \d+ .* a ResNet-18 \(2-2-2-2 blocks, a stem of three",
        ),
        (
            "mit",
            lambda s: s.clear() or s.update(x=torch.ones(2), y=torch.ones(1)),
            "It seems to hold something else: 2 tensors, the first of them x, y",
        ),
    ],
    ids=["missing", "size", "deeper", "resnet", "other"],
)
def test_other_weights_are_described(kind: str, edit: Any, message: str, tmp_path: Path) -> None:
    state = {key: value.clone() for key, value in backbone(kind).state_dict().items()}
    edit(state)
    torch.save(state, tmp_path / "w.pth")
    ours = backbone("mit", seed=3)
    before = copy.deepcopy(ours.state_dict())
    with pytest.raises(ModelError, match=message) as caught:
        load_weights(ours, {"file": str(tmp_path / "w.pth"), "sha256": file_digest(tmp_path / "w.pth")})
    assert isinstance(caught.value, RunError)
    assert equal_tensors(ours.state_dict(), before), "nothing was touched"


def test_public_backbones_are_recognised() -> None:
    blocks = (3, 6, 40, 3)
    b5 = {f"layers.{s}.1.{b}.norm1.weight": torch.ones(1) for s in range(4) for b in range(blocks[s])}
    b5["layers.0.0.projection.weight"] = torch.ones(64, 3, 7, 7)
    assert seems_to_be(b5) == "a MiT-B5 (width 64, 3-6-40-3 blocks)"
    r101 = {
        f"layer{s + 1}.{b}.conv{c}.weight": torch.ones(1)
        for s in range(4)
        for b in range((3, 4, 23, 3)[s])
        for c in (1, 3)
    }
    assert seems_to_be(r101) == "a ResNet-101 (3-4-23-3 blocks, a stem of one convolution)"


class Evil:
    def __reduce__(self) -> Any:
        return (print, ("it ran",))


def test_damaged_files_and_code_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "w.pth"

    def load() -> None:
        load_weights(backbone("mit"), {"file": str(path), "sha256": file_digest(path)})

    torch.save({"x": torch.ones(1), "y": Evil()}, path)
    with pytest.raises(RunError, match=r"w\.pth cannot be read .*refused because it could run code") as caught:
        load()
    assert "it asks for " in str(caught.value)
    assert "weights_only" not in str(caught.value), "torch advises to run it"
    assert "it ran" not in capsys.readouterr().out
    torch.save(backbone("mit").state_dict(), path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(RunError, match=r"w\.pth cannot be read .*damaged"):
        load()
    torch.save([torch.ones(1)], path)
    with pytest.raises(RunError, match=r"w\.pth holds no tensors by name"):
        load()
    path.write_bytes(b"")
    with pytest.raises(RunError, match=r"cannot be read"):
        load()
    path.write_bytes(b"<html>404</html>")
    with pytest.raises(RunError, match=r"cannot be read \(it is no pickle of tensors\)"):
        load()


@pytest.mark.parametrize(
    ("described", "message"),
    [
        ({"sha256": "0" * 64}, r"weights needs a file"),
        ({"file": "x.pth"}, r"weights needs a sha256"),
        ({"file": "x.pth", "sha": "0"}, r"weights takes no 'sha': did you mean sha256"),
        ({"file": "x.pth", "sha256": 65874690}, r"weights\.sha256 is text \(in quotes.*not 65874690"),
    ],
)
def test_mistakes_are_explained(described: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        build_segmentor(trunk("mit") | {"weights": described}, pretrained=False)


def test_fewer_than_eight_digits_prove_nothing(tmp_path: Path) -> None:
    torch.save(backbone("mit").state_dict(), tmp_path / "w.pth")
    few = file_digest(tmp_path / "w.pth")[:7]
    with pytest.raises(ModelError, match=rf"{few}.*at least its first 8 digits are needed"):
        load_weights(backbone("mit"), {"file": str(tmp_path / "w.pth"), "sha256": few})
