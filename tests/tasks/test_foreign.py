"""Networks and predictions from elsewhere: scored as by their own code, and refused where they do not fit."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from flexseg.benchmark import Benchmark, Row, Run
from flexseg.classes import CITYSCAPES, ClassSet, SemanticClass
from flexseg.errors import RunError, UserError
from flexseg.tasks.datasets import open_index
from flexseg.tasks.foreign import ForeignNetwork, find_predictions, groups_of, load_foreign
from flexseg.tasks.jobs import evaluate_row, load_network

CONFIG = """
_base_ = ['./base.py']
crop = 2 * 16
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(type='SegDataPreProcessor', {preprocessor}, seg_pad_val=255),
    backbone=dict(type='ResNetV1c', depth=18, stem_channels=8, base_channels=8, norm_cfg=norm_cfg,
                  init_cfg=dict(type='Pretrained', checkpoint='open-mmlab://resnet18_v1c')),
    decode_head=dict(type='FCNHead', in_channels=64, channels=8, num_convs=1, concat_input=False, in_index=3,
                     num_classes={classes}, norm_cfg=norm_cfg, dropout_ratio=0.1,
                     loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0)),
    train_cfg=dict(), test_cfg=dict(mode='whole'))
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
"""
RGB = "mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True"
BGR = "mean=[100.0, 110.0, 120.0], std=[60.0, 50.0, 40.0], bgr_to_rgb=False"
Evaluated = Callable[..., dict[str, Any]]


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """``write(preprocessor, names, classes)``: a configuration and a checkpoint of random weights, as row's keys."""

    def written(preprocessor: str = RGB, names: Any = CITYSCAPES.names, classes: int = 19) -> dict[str, str]:
        from flexseg.models.mmseg_config import read_config, take_weights
        from flexseg.models.registry import MODELS, building

        (tmp_path / "base.py").write_text("norm_cfg = dict(type='SyncBN', requires_grad=True)\n")
        config, checkpoint = tmp_path / "net.py", tmp_path / "net.pth"
        text = CONFIG.format(preprocessor=preprocessor, classes=classes).replace(
            "norm_cfg=norm_cfg", "norm_cfg=_base_.norm_cfg"
        )
        config.write_text(text)
        model = read_config(config)["model"]
        take_weights(model)
        torch.manual_seed(0)
        with building():
            net = MODELS.build(model)
        net.init_weights()
        state = net.state_dict()
        for name, value in state.items():  # fresh norms and classifiers hardly tell anything apart
            if name.endswith(("running_mean", "conv_seg.weight", "conv_seg.bias")):
                value.normal_()
        torch.save({"meta": {"dataset_meta": {"classes": names}} if names else {}, "state_dict": state}, checkpoint)
        return {"checkpoint": str(checkpoint), "config": str(config)}

    return written


@pytest.fixture
def evaluated(smoke: Benchmark, results: Path) -> Evaluated:
    """``evaluated(**row)``: the confusion counts of such a row by target, (19, 19) each."""

    def run(benchmark: Benchmark = smoke, **row: Any) -> dict[str, Any]:
        chosen = benchmark.model_copy(update={"rows": {"mine": Row(title="Mine", **row)}})
        evaluate_row(chosen, "mine", results)
        folder = Run(chosen, "mine", 0, results).evaluated.evaluation
        tables = {path.stem: pq.read_table(path) for path in folder.glob("*.parquet")}
        return {name: np.stack(table["confusion"].to_numpy()).sum(0).reshape(19, 19) for name, table in tables.items()}

    return run


def mmsegs_own(row: dict[str, str], benchmark: Benchmark, results: Path, target: str, work: Path) -> np.ndarray:
    """The areas of each class (intersection, union) as mmseg's test loop and IoUMetric find them. (2, 19)"""
    from mmengine.config import Config
    from mmengine.runner import Runner
    from mmseg.datasets import BaseSegDataset
    from mmseg.evaluation import IoUMetric
    from mmseg.registry import DATASETS, METRICS

    found: list[np.ndarray] = []
    index = open_index(benchmark, target, results)
    rows = index.split("test")

    @DATASETS.register_module(force=True)
    class Frames(BaseSegDataset):
        METAINFO: ClassVar = {
            "classes": CITYSCAPES.names,
            "palette": [list(each.colour) for each in CITYSCAPES.classes],
        }

        def load_data_list(self) -> list[dict[str, Any]]:
            common = {"label_map": None, "reduce_zero_label": False, "seg_fields": []}
            return [
                {"img_path": str(index.root / each.image), "seg_map_path": str(index.root / each.label), **common}
                for each in rows.itertuples()
            ]

    @METRICS.register_module(force=True)
    class Areas(IoUMetric):
        def compute_metrics(self, results: list) -> dict[str, float]:
            found.append(np.stack([sum(result[place] for result in results).numpy() for place in (0, 1)]))
            return super().compute_metrics(results)

    config = Config.fromfile(row["config"], import_custom_modules=False)
    config.model.backbone.init_cfg = None
    loader = {
        "batch_size": 1, "num_workers": 0, "sampler": {"type": "DefaultSampler", "shuffle": False},
        "dataset": {"type": "Frames", "pipeline": config.test_pipeline, "reduce_zero_label": False},
    }  # fmt: skip
    runner = Runner(
        model=config.model, work_dir=str(work), load_from=row["checkpoint"], default_scope="mmseg",
        test_dataloader=loader, test_evaluator={"type": "Areas", "iou_metrics": ["mIoU"]},
        test_cfg={"type": "TestLoop"},
        env_cfg={"dist_cfg": {"backend": "gloo"}}, log_level="ERROR",
    )  # fmt: skip
    runner.test()
    return found[0]


@pytest.mark.parametrize("preprocessor", [RGB, BGR], ids=["rgb", "bgr"])
def test_a_checkpoint_scores_as_in_mmsegs_own_test_loop(
    preprocessor: str, write: Callable[..., dict[str, str]], evaluated: Evaluated, smoke: Benchmark, results: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    row = write(preprocessor)
    counts = evaluated(**row)
    assert sorted(counts) == sorted(smoke.targets)
    for target in ("night", "places"):
        intersection, union = mmsegs_own(row, smoke, results, target, tmp_path / "work")
        confusion = counts[target]
        truth, predicted, hits = confusion.sum(1), confusion.sum(0), confusion.diagonal()
        occurs = truth > 0
        ours = (hits / np.maximum(truth + predicted - hits, 1))[occurs].mean()
        theirs = (intersection / np.maximum(union, 1))[occurs].mean()
        assert abs(ours - theirs) < 1e-6
        assert 0 < ours < 0.5, "a network that says something"
        assert (predicted > 0).sum() > 2


def test_an_exported_network_predicts_as_the_checkpoint(
    write: Callable[..., dict[str, str]], evaluated: Evaluated, smoke: Benchmark, tmp_path: Path
) -> None:
    row = write()
    wanted = evaluated(**row)
    chosen = smoke.model_copy(update={"rows": {"mine": Row(title="Mine", **row)}})
    net = load_network(Run(chosen, "mine", 0)).net

    class Plain(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.net._forward(images)

    path = tmp_path / "net.pt"
    torch.jit.trace(Plain().eval(), torch.zeros(1, 3, 48, 96), check_trace=False).save(str(path))
    found = evaluated(network=str(path))
    assert all(np.array_equal(wanted[target], found[target]) for target in smoke.targets)


def test_predictions_are_scored_as_they_are(
    write: Callable[..., dict[str, str]], evaluated: Evaluated, smoke: Benchmark, results: Path, tmp_path: Path
) -> None:
    """Label maps that a network wrote have its counts, without probabilities; a target without any is left out."""
    kept = smoke.model_copy(update={"predictions": 1000})
    wanted = evaluated(kept, **write())
    run = Run(kept.model_copy(update={"rows": {"mine": Row(title="Mine", method="x")}}), "mine", 0, results)
    folder = tmp_path / "theirs"
    for target in ("night", "mixed"):
        (run.evaluated.predictions / target).rename(
            (folder / target) if folder.mkdir(exist_ok=True) is None else folder
        )
    found = evaluated(kept, predictions=str(folder))
    assert sorted(path.stem for path in run.evaluated.evaluation.iterdir()) == sorted(smoke.targets), "older ones stay"
    assert all(np.array_equal(wanted[target], found[target]) for target in ("night", "mixed"))
    table = pq.read_table(run.evaluated.records("night"))
    assert table.schema.metadata[b"probabilities"] == b"none"
    assert np.stack(table["calibration_count"].to_numpy()).sum() == 0


@pytest.fixture
def folder(smoke: Benchmark, results: Path, tmp_path: Path) -> Path:
    """A folder of predictions of ``night`` that say road everywhere."""
    place = tmp_path / "theirs" / "night"
    place.mkdir(parents=True)
    for name in open_index(smoke, "night", results).split("test")["id"]:
        Image.fromarray(np.zeros((48, 96), np.uint8)).save(place / f"{name}.png")
    return place


def first(folder: Path) -> Path:
    return sorted(folder.iterdir())[0]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.unlink(), r"has no prediction of 1 of 4 images of night: night.*Name each file after"),
        (lambda path: Image.fromarray(np.zeros((24, 48), np.uint8)).save(path), r"24×48 pixels, and its label 48×96"),
        (lambda path: Image.fromarray(np.full((48, 96), 19, np.uint8)).save(path), "holds the id 19: a prediction"),
        (lambda path: Image.fromarray(np.zeros((48, 96, 3), np.uint8)).save(path), "picture of mode RGB"),
        (lambda path: path.write_bytes(b"no picture"), "cannot be decoded"),
    ],
    ids=["missing", "size", "id", "colours", "damaged"],
)
def test_predictions_that_do_not_fit(
    folder: Path, evaluated: Evaluated, spoil: Callable[[Path], Any], message: str
) -> None:
    spoil(first(folder))
    with pytest.raises(RunError, match=message):
        evaluated(predictions=str(folder.parent))


def test_predictions_may_bear_the_names_of_the_images(folder: Path, smoke: Benchmark, results: Path) -> None:
    index = open_index(smoke, "night", results)
    by_id = find_predictions(folder.parent, "night", index)
    for name, image in zip(index.split("test")["id"], index.split("test")["image"], strict=True):
        (folder / f"{name}.png").rename(folder / f"{Path(image).stem}.png")
    by_file = find_predictions(folder.parent, "night", index)
    assert by_id.keys() == by_file.keys()
    assert by_id != by_file
    assert find_predictions(folder, "night", index).keys() == by_id.keys(), "or lie in the folder itself"
    assert find_predictions(folder.parent, "mixed", index) == {}


FOUR = ClassSet(
    "four", tuple(SemanticClass(name, (0, 0, i), False) for i, name in enumerate("abcd")), takes={"e": "b", "v": "void"}
)


def test_the_classes_of_a_network_are_told_by_their_names() -> None:
    path = Path("net.pth")
    assert groups_of(("a", "b", "c", "d"), 4, FOUR, path) is None
    assert groups_of((), 4, FOUR, path) is None
    assert groups_of(("d", "v", "e", "c", "b", "a"), 6, FOUR, path) == [[5], [2, 4], [3], [0]]
    with pytest.raises(RunError, match=r"net\.pth was trained on other classes: x of its 4 are none of four"):
        groups_of(("a", "b", "c", "x"), 4, FOUR, path)
    with pytest.raises(RunError, match="nothing of it counts as d"):
        groups_of(("a", "b", "c"), 3, FOUR, path)
    with pytest.raises(RunError, match="tells 7 classes apart and does not name them"):
        groups_of((), 7, FOUR, path)
    with pytest.raises(RunError, match="names 2 classes, and its head has 3"):
        groups_of(("a", "b"), 3, FOUR, path)


def test_merged_classes_have_the_sum_of_their_members_probabilities() -> None:
    logits = torch.randn(2, 6, 3, 4, generator=torch.Generator().manual_seed(0))
    groups = [[5], [2, 4], [3], [0]]
    found = ForeignNetwork(lambda images: logits, groups=groups, classes=4).predict(torch.zeros(2, 3, 3, 4))
    p = logits.softmax(dim=1)
    wanted = torch.stack([sum(p[:, member] for member in group) for group in groups], dim=1)  # type: ignore[misc]
    torch.testing.assert_close(found.exp(), wanted)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": ("a", "b"), "classes": 2}, "was trained on other classes: a, b of its 2 are none of cityscapes19"),
        ({"names": None, "classes": 7}, "tells 7 classes apart and does not name them"),
    ],
)
def test_a_checkpoint_of_other_classes(
    write: Callable[..., dict[str, str]], evaluated: Evaluated, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(RunError, match=message):
        evaluated(**write(**change))


def test_weights_of_another_model(write: Callable[..., dict[str, str]], evaluated: Evaluated) -> None:
    row = write()
    content = torch.load(row["checkpoint"], weights_only=True)
    del content["state_dict"]["backbone.stem.0.weight"]
    content["state_dict"]["extra"] = torch.zeros(1)
    torch.save(content, row["checkpoint"])
    with pytest.raises(RunError, match=r"it lacks 1 \(backbone.stem.0.weight\); it has beyond it 1 \(extra\)"):
        evaluated(**row)


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch executed",)


def test_no_pickled_object_is_executed(
    write: Callable[..., dict[str, str]], evaluated: Evaluated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    row = write()
    torch.save({"state_dict": {"a": torch.zeros(1)}, "meta": Evil()}, row["checkpoint"])
    with pytest.raises(UserError, match="holds more than tensors"):
        evaluated(**row)
    assert not (tmp_path / "executed").exists()


def test_a_checkpoint_as_mmengine_writes_it_while_training(
    write: Callable[..., dict[str, str]], evaluated: Evaluated
) -> None:
    """The history of its log is an object, which is not read; the message says how to keep the weights alone."""
    from mmengine.logging import HistoryBuffer

    row = write()
    before = evaluated(**row)
    content = torch.load(row["checkpoint"], weights_only=True)
    history = HistoryBuffer([1.0, 2.0], [1, 1])
    torch.save(content | {"message_hub": {"log_scalars": {"loss": history}}}, row["checkpoint"])
    with pytest.raises(UserError, match="how to keep the weights alone"):
        evaluated(**row)
    c = torch.load(row["checkpoint"], weights_only=False)
    kept = {"state_dict": c["state_dict"], "meta": {"dataset_meta": c["meta"]["dataset_meta"]}}
    torch.save(kept, row["checkpoint"])
    after = evaluated(**row)
    assert all(np.array_equal(before[target], after[target]) for target in before)


def test_a_file_that_is_no_network(evaluated: Evaluated, tmp_path: Path) -> None:
    (tmp_path / "net.pt").write_bytes(b"nothing")
    with pytest.raises(RunError, match=r"net.pt cannot be read as TorchScript"):
        evaluated(network=str(tmp_path / "net.pt"))
    with pytest.raises(UserError, match="there is no file"):
        evaluated(network=str(tmp_path / "other.pt"))


def test_a_changed_file_is_another_run(folder: Path, smoke: Benchmark) -> None:
    def name() -> str:
        rows = {"mine": Row(title="Mine", predictions=str(folder.parent))}
        return Run(smoke.model_copy(update={"rows": rows}), "mine", 0).fingerprint

    before = name()
    assert name() == before
    Image.fromarray(np.ones((48, 96), np.uint8)).save(first(folder))
    assert name() != before


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"checkpoint": "a.pth"}, "checkpoint needs its mmseg config"),
        ({"network": "a.pt", "config": "a.py"}, "network and config do not go together"),
        ({"network": "a.pt", "predictions": "b"}, "network and predictions are two things"),
        ({"network": "a.pt", "method": "flexseg"}, "not trained here, so method would not be used"),
        ({"network": "a.pt", "alpha": 3}, "not trained here, so alpha would not be used"),
        ({"method": "flexseg", "config": "a.py"}, "config belongs to a checkpoint"),
    ],
)
def test_rows_that_contradict_themselves(row: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Row(**row)


def test_what_is_not_there_costs_its_own_row(smoke: Benchmark, results: Path, tmp_path: Path) -> None:
    from flexseg.analysis.stats.records import load_records
    from flexseg.files import read_json
    from flexseg.tasks.check import check_benchmark

    rows = smoke.rows | {"lost": Row(title="Lost", predictions=str(tmp_path / "nowhere"))}
    benchmark = smoke.model_copy(update={"rows": rows})
    assert f"row lost will be shown as failed: there is no folder {tmp_path / 'nowhere'}" in check_benchmark(benchmark)
    evaluate_row(benchmark, "lost", results, receipt=tmp_path / "receipt.json")
    assert read_json(tmp_path / "receipt.json")["seeds"] == {"0": "missing"}
    (run,) = load_records(benchmark, results).of_row("lost")
    assert run.reason == f"missing: there is no folder {tmp_path / 'nowhere'}"


def test_a_network_is_loaded_in_eval_mode(write: Callable[..., dict[str, str]], smoke: Benchmark) -> None:
    chosen = smoke.model_copy(update={"rows": {"mine": Row(title="Mine", **write())}})
    net = load_foreign(Run(chosen, "mine", 0))
    assert not any(module.training for module in net.modules())


def test_an_onnx_network_predicts_as_the_checkpoint(
    write: Callable[..., dict[str, str]], evaluated: Evaluated, smoke: Benchmark, tmp_path: Path
) -> None:
    reason = "needs onnxruntime and onnx: pip install --no-deps -r requirements-onnx.lock onnx"
    pytest.importorskip("onnxruntime", reason=reason)
    pytest.importorskip("onnx", reason=reason)
    row = write()
    chosen = smoke.model_copy(update={"rows": {"mine": Row(title="Mine", **row)}})
    net = load_network(Run(chosen, "mine", 0)).net

    class Plain(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.net._forward(images)

    path = tmp_path / "net.onnx"
    torch.onnx.export(
        Plain().eval(), (torch.zeros(1, 3, 48, 96),), str(path), input_names=["images"], dynamo=False,
        dynamic_axes={"images": {0: "batch"}},
    )  # fmt: skip
    exported = load_network(
        Run(smoke.model_copy(update={"rows": {"mine": Row(title="Mine", network=str(path))}}), "mine", 0)
    )
    images = torch.randn(2, 3, 48, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        wanted = load_network(Run(chosen, "mine", 0)).predict(images)
        torch.testing.assert_close(exported.predict(images), wanted, rtol=1e-3, atol=1e-3)


def test_onnx_without_its_package_is_not_run(
    evaluated: Evaluated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    from flexseg.errors import MissingExtra

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    (tmp_path / "net.onnx").write_bytes(b"a network")
    with pytest.raises(MissingExtra, match=r"requirements-onnx\.lock"):
        evaluated(network=str(tmp_path / "net.onnx"))
