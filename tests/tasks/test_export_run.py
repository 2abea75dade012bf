"""An exported run: mmseg's own functions load it and predict the suite's pixels; others are refused."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from flexseg.benchmark import Benchmark, Protocol, Run, Size, fingerprint
from flexseg.benchmark.schedule import Fit
from flexseg.engine.checkpoint import save_tensors
from flexseg.engine.inference import predict_logits
from flexseg.errors import UserError
from flexseg.files import write_json
from flexseg.method import Setup, parse_options
from flexseg.method_files import load_method, method_names
from flexseg.tasks.export import (
    at_training_scale,
    check_same,
    export_run,
    mmseg_config,
    mmseg_description,
    parse_run,
    python_source,
)
from flexseg.tasks.jobs import load_trained

MIT = {
    "type": "MixVisionTransformer",
    "embed_dims": 8,
    "num_layers": [1, 1, 1, 1],
    "num_heads": [1, 2, 4, 8],
    "sr_ratios": [8, 4, 2, 1],
}
DAFORMER = {
    "backbone": MIT,
    "decode_head": {"type": "DAFormerHead", "in_channels": [8, 16, 32, 64], "channels": 8, "embed_dims": 8},
}
HRDA = DAFORMER | {
    "hrda": {"detail": [32, 32], "stride": [16, 16], "attention": {"type": "SegformerHead", "channels": 8}}
}
SLIDE = {"inference": "slide", "window": (32, 40), "stride": (20, 24)}
PREPARED = {"night": {"height": 40, "crop": (48, 64), "labels": True}}

CASES: dict[str, tuple[dict[str, Any] | None, dict[str, Any], str]] = {
    "unet, whole": (None, {}, ""),
    "unet, windows of odd sizes": (None, SLIDE | {"window": (33, 41)}, ""),
    "unet, prepared labels of a target": (None, {"sizes": PREPARED}, "night"),
    "daformer, whole": (DAFORMER, {"size": {"height": 45}}, ""),
    "daformer, resized by a fraction, in windows": (DAFORMER, SLIDE | {"size": {"fit": (57, 91)}}, ""),
    "hrda, in windows": (HRDA, SLIDE | {"window": (64, 80), "size": {"fit": (64, 128)}}, ""),
}
"""Trunk (none: smoke's UNet), what the protocol says, target."""


@pytest.fixture
def finished(smoke: Benchmark, methods: Path, tmp_path: Path) -> Callable[..., Benchmark]:
    """``finished(model, protocol)``: a benchmark with a run of ``dginstyle`` in ``tmp_path`` that looks trained."""

    def make(model: dict[str, Any] | None = None, protocol: dict[str, Any] | None = None) -> Benchmark:
        update: dict[str, Any] = {"protocol": Protocol(**(smoke.protocol.model_dump() | (protocol or {})))}
        benchmark = smoke.model_copy(update=update | ({"model": model} if model else {}))
        definition = benchmark.run_definition("dginstyle", 0)
        directory = Run(benchmark, "dginstyle", 0, tmp_path).directory
        torch.manual_seed(0)
        method = load_method("dginstyle", methods)
        trunk = method(parse_options(method, {}), Setup(0, 1, np.zeros(0, np.int8))).build_model(benchmark.model)
        with torch.no_grad():
            for name, value in trunk.state_dict().items():
                # Fresh classifiers hardly tell classes apart, and fresh norms do nothing.
                if name.endswith(("running_mean", "conv_seg.weight", "conv_seg.bias")):
                    value.normal_()
        save_tensors(directory.weights, trunk.state_dict(), {})
        record = {"status": "finished", "fingerprint": fingerprint(definition), "definition": definition}
        write_json(directory.record, record)
        return benchmark

    return make


def photo(path: Path, height: int = 51, width: int = 75) -> np.ndarray:
    """Write coloured blots; return them as they are decoded."""
    rng = np.random.default_rng(3)
    small = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    small.resize((width, height), Image.Resampling.BICUBIC).save(path)
    return np.asarray(Image.open(path))


@pytest.mark.parametrize("name", CASES)
def test_mmseg_predicts_the_same_pixels(
    name: str, finished: Callable[..., Benchmark], methods: Path, tmp_path: Path
) -> None:
    from mmseg.apis import inference_model, init_model

    model, protocol, target = CASES[name]
    benchmark = finished(model, protocol)
    run = Run(benchmark, "dginstyle", 0, tmp_path)
    config, checkpoint = export_run(run, tmp_path / "out", target=target)
    image = photo(tmp_path / "photo.jpg")

    trained = load_trained(run)
    wanted = predict_logits(trained, image, at_training_scale(run, target), target)
    theirs = init_model(str(config), str(checkpoint), device="cpu")
    found = inference_model(theirs, str(tmp_path / "photo.jpg"))

    assert theirs.state_dict().keys() == trained.state_dict().keys(), "mmengine would only warn"
    assert found.seg_logits.data.shape == wanted.shape
    torch.testing.assert_close(found.seg_logits.data, wanted, rtol=1e-4, atol=1e-4)
    # Of their own logits: where two classes are nearly as likely, another rounding decides otherwise.
    assert torch.equal(found.pred_sem_seg.data[0], found.seg_logits.data.argmax(dim=0))
    assert len(wanted.argmax(dim=0).unique()) > 3, "a prediction of one class proves little"
    assert theirs.dataset_meta["classes"][13] == "car"


def test_images_of_ones_own_are_shown_at_the_scale_of_training(smoke: Benchmark) -> None:
    def size(target: str = "", **changes: Any) -> Size:
        training = smoke.training.model_copy(update=changes.pop("training", {}))
        protocol = Protocol(**(smoke.protocol.model_dump() | changes))
        benchmark = smoke.model_copy(update={"training": training, "protocol": protocol})
        return at_training_scale(Run(benchmark, "dginstyle", 0), target).size_of(target)

    assert smoke.world is not None
    assert size() == size("night") == Size(height=smoke.world.height)
    assert size(training={"resize": (20, 40)}) == Size(height=20)
    assert size(training={"resize": Fit(fit=(20, 40))}) == Size(fit=(20, 40))
    assert size(size={"height": 40}) == Size(height=40), "what the protocol says of its test images comes first"
    assert size("night", sizes={"night": {"height": 30}}) == Size(height=30)
    assert size("mixed", sizes={"night": {"height": 30}}) == Size(height=smoke.world.height)


def test_a_fresh_process_knows_our_classes(finished: Callable[..., Benchmark], methods: Path, tmp_path: Path) -> None:
    benchmark = finished(HRDA, {"size": {"height": 64}})
    config, checkpoint = export_run(Run(benchmark, "dginstyle", 0, tmp_path), tmp_path / "out")
    photo(tmp_path / "photo.png", 32, 48)
    code = (
        "from mmseg.apis import inference_model, init_model\n"
        f"model = init_model({str(config)!r}, {str(checkpoint)!r}, device='cpu')\n"
        f"print(tuple(inference_model(model, {str(tmp_path / 'photo.png')!r}).pred_sem_seg.data.shape))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.stdout.splitlines()[-1:] == ["(1, 32, 48)"], done.stderr[-2000:]


# What an mmseg configuration cannot express; five more, fada, lora, rein, set_tokens and soma, need a frozen ViT.
CHANGING = ["blindnet", "ibn_net", "iternorm", "mrfp", "robustnet", "san_saw", "spc", "switchable_whitening"]


def test_methods_that_change_the_network_are_refused(smoke: Benchmark, methods: Path) -> None:
    refused = []
    for name in method_names(methods):
        method = load_method(name, methods)
        if name == "detectron2_fpn" or "vit" in method.needs:  # trunks of their own
            continue
        model = method(parse_options(method, {}), Setup(0, 1, np.zeros(0, np.int8))).build_model(smoke.model)
        config = mmseg_config(mmseg_description(smoke.model, model, name), smoke.protocol)
        if name not in CHANGING:
            check_same(model, config["model"], name)
            continue
        with pytest.raises(UserError, match=f"{name} changes the network itself"):
            check_same(model, config["model"], name)
        refused.append(name)
    assert refused == CHANGING
    listed = sys.modules["flexseg.tasks.export"].__doc__ or ""
    assert all(name in listed for name in refused)


def test_a_hidden_change_of_the_network_is_found(smoke: Benchmark, methods: Path) -> None:
    method = load_method("dginstyle", methods)
    model = method(parse_options(method, {}), Setup(0, 1, np.zeros(0, np.int8))).build_model(smoke.model)
    config = mmseg_config(mmseg_description(smoke.model, model, "dginstyle"), smoke.protocol)
    model.decode_head.conv_seg.register_forward_hook(lambda *call: call[2] * 1.01)
    with pytest.raises(UserError, match="other logits"):
        check_same(model, config["model"], "dginstyle")


def test_a_trunk_of_detectron2_is_refused() -> None:
    from flexseg.models.detectron2 import Detectron2Segmentor

    with pytest.raises(UserError, match="detectron2"):
        mmseg_description({}, object.__new__(Detectron2Segmentor), "detectron2_fpn")


def test_runs_are_named_by_words_or_by_directory(
    finished: Callable[..., Benchmark], methods: Path, tmp_path: Path
) -> None:
    benchmark = finished()
    asked = []

    def load(name: str, row: str) -> Benchmark:
        asked.append((name, row))
        return benchmark

    run, rest = parse_run(["smoke", "flexseg", "2", "a.png"], load, Path("results"))
    assert (run.row, run.seed, run.directory.root, rest) == (
        "flexseg",
        2,
        Path("results/smoke/flexseg/seed-2"),
        ["a.png"],
    )
    place = tmp_path / "smoke/dginstyle/seed-0"
    run, rest = parse_run([str(place), "a.png"], load, Path("results"))
    assert (run.row, run.seed, run.directory.root, rest) == ("dginstyle", 0, place, ["a.png"])
    assert run.trained
    assert asked == [("smoke", "flexseg"), ("smoke", "dginstyle")]
    for words in ([], ["smoke", "flexseg"], ["smoke", "flexseg", "a.png"]):
        with pytest.raises(UserError, match="names no run"):
            parse_run(words, load, Path("results"))
    with pytest.raises(UserError, match="no finished run"):
        parse_run([str(tmp_path)], load, Path("results"))
    with pytest.raises(UserError, match=r"flexseg train smoke dginstyle 1"):
        export_run(Run(benchmark, "dginstyle", 1, tmp_path), tmp_path / "out")
    with pytest.raises(UserError, match="did you mean 'night'"):
        export_run(Run(benchmark, "dginstyle", 0, tmp_path), tmp_path / "out", target="nigth")
    assert not (tmp_path / "out").exists()


def test_python_source_evaluates_to_its_values() -> None:
    value = {"a": [1, (2.5,), None], "b": {"type": "X", "class": "it's"}, "c": [{"key": "long " * 9}] * 4, "d": ()}
    text = python_source({"value": value})
    found: dict[str, Any] = {}
    exec(text, found)
    assert found["value"] == value
    assert max(map(len, text.splitlines())) <= 110
    assert len(text.splitlines()) > 5
