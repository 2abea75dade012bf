"""Classes of a benchmark's own: what a file may say, what follows from it, and the same counts under other ids."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from builders import unet

from flexseg.benchmark import Benchmark, Protocol, Run, load_benchmark
from flexseg.classes import CITYSCAPES, CLASS_SETS, IGNORE, ClassSet, SemanticClass, scored_classes
from flexseg.data.label_maps import load_map
from flexseg.data.sets import load_set, set_names
from flexseg.engine.counts import count, describe_truth
from flexseg.errors import UserError
from flexseg.models import build_segmentor

TWO = {
    "name": "drivable2",
    "members": [
        {"name": "drivable", "colour": [128, 64, 128], "takes": ["road"]},
        {"name": "rest", "colour": [1, 2, 3], "takes": [n for n in CITYSCAPES.names if n not in ("road", "sky")]},
    ],
    "void": ["sky"],
}


@pytest.fixture
def write(tmp_path: Path, smoke_content: Callable[[], dict[str, Any]]) -> Callable[..., Benchmark]:
    """``write(**keys)``: smoke with these top-level keys, loaded as ``mine``."""

    def written(**keys: Any) -> Benchmark:
        content = smoke_content() | {"classes": TWO, "protocol": {"id": "two-v1", "boundary_band": 2}} | keys
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump({k: v for k, v in content.items() if v is not None}))
        return load_benchmark("mine", tmp_path)

    return written


def test_a_benchmark_lists_its_classes(write: Callable[..., Benchmark]) -> None:
    benchmark = write()
    classes = benchmark.class_set
    assert classes.names == ("drivable", "rest")
    assert (classes.ids["road"], classes.ids["car"], classes.ids["sky"]) == (0, 1, IGNORE)
    assert benchmark.model_of("dginstyle")["num_classes"] == 2
    mapped = load_map("train_ids", classes)
    assert mapped.table[:19].tolist() == [0, *[1] * 9, IGNORE, *[1] * 8]


def test_the_classes_are_part_of_what_a_run_and_its_data_are(write: Callable[..., Benchmark]) -> None:
    plain = write(classes=None)
    other = write()
    renamed = write(classes=TWO | {"members": [TWO["members"][0] | {"name": "street"}, TWO["members"][1]]})
    prints = [Run(each, "dginstyle", 0).fingerprint for each in (plain, other, renamed)]
    assert len(set(prints)) == 3
    assert "classes" not in plain.domain_definition("night"), "runs from before there were other classes stay valid"
    assert plain.domain_definition("night") != other.domain_definition("night")


@pytest.mark.parametrize("name", CLASS_SETS)
def test_every_set_of_the_suite_serves_every_data_set(name: str) -> None:
    classes = CLASS_SETS[name]
    for each in set_names():
        dataset = load_set(each)
        for layout in dataset.layouts:
            if not layout.refused:
                found = dataset.load_map(dataset.map_of(layout), classes)
                assert found is None or set(found.table.tolist()) <= {*range(len(classes)), IGNORE}


def test_synthia16_leaves_out_what_synthia_has_not() -> None:
    classes = CLASS_SETS["synthia16"]
    assert len(classes) == 16
    assert set(CITYSCAPES.names) - set(classes.names) == {"terrain", "truck", "train"}
    mapped = load_map("train_ids", classes)
    assert [mapped.table[CITYSCAPES.ids[name]] for name in ("terrain", "truck", "train")] == [IGNORE] * 3
    assert mapped.table[CITYSCAPES.ids["bicycle"]] == classes.ids["bicycle"] == 15


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": "cityscapes91"}, r"no class set is named 'cityscapes91' \(did you mean 'cityscapes19'\?\)"),
        (
            {"classes": TWO | {"members": TWO["members"][:1] * 2, "void": []}},
            r"mine.yaml .*\n  classes: road would count",
        ),
        ({"classes": {"name": "x", "members": [{"name": "a", "colour": [0, 0, 0]}] * 2}}, "two classes are named 'a'"),
        ({"classes": TWO | {"colours": []}}, r"classes.colours: unknown key"),
        ({"classes": TWO | {"name": "cityscapes19"}}, "choose another name"),
        ({"classes": TWO | {"void": ["car"]}}, "car would count as two things"),
        ({"classes": TWO | {"void": ["drivable"]}}, "'drivable' is a class of this set itself"),
        ({"classes": TWO | {"ignore": 1}}, "ignore: 1 is the id of a class"),
        ({"classes": TWO | {"ignore": 300}}, "classes"),
        ({"classes": TWO | {"members": []}}, "classes"),
        ({"classes": TWO | {"members": [{"name": "a", "colour": [0, 0, 256]}]}}, "256|255"),
        ({"classes": TWO | {"members": [{"name": "void", "colour": [0, 0, 0]}]}}, "cannot be named 'void'"),
        ({"protocol": {"id": "x", "boundary_band": 2, "classes": "camvid11"}}, "no class set is named 'camvid11'"),
        ({"model": unet() | {"num_classes": 5}}, "leave it out"),
    ],
)
def test_wrong_classes(write: Callable[..., Benchmark], change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        write(**change)


def test_a_feature_distance_asks_for_classes_of_the_set(
    write: Callable[..., Benchmark], smoke_content: Callable[[], dict[str, Any]]
) -> None:
    training = smoke_content()["training"]
    with pytest.raises(UserError, match="drivable2 has no things"):
        write(training=training | {"feature_distance": {}})
    with pytest.raises(UserError, match="there is no class 'car'"):
        write(training=training | {"feature_distance": {"classes": ["car"]}})
    distance = write(training=training | {"feature_distance": {"classes": ["rest"]}}).training.feature_distance
    assert distance is not None
    assert distance.classes_in(write().class_set) == ("rest",)


def test_a_label_map_that_names_what_the_classes_do_not_know() -> None:
    lonely = ClassSet("lonely", (SemanticClass("road", (1, 2, 3), False),))
    with pytest.raises(UserError, match=r"sidewalk, .* of which the classes lonely say nothing"):
        load_map("train_ids", lonely)


def test_records_of_other_classes_need_another_protocol(tmp_path: Path, write: Callable[..., Benchmark]) -> None:
    write()
    (tmp_path / "next.yaml").write_text(yaml.safe_dump({"extends": "mine", "classes": {"name": "other"}}))
    with pytest.raises(UserError, match="classes differs from that of mine and so its protocol needs an id"):
        load_benchmark("next", tmp_path)


@pytest.mark.parametrize("size", [40, 70, 200])
def test_counts_do_not_depend_on_how_many_classes_there_are(size: int) -> None:
    """The same maps under ids that are spread over a larger set have the same counts, at the spread ids."""
    rng = np.random.default_rng(size)
    small = ClassSet("small", tuple(SemanticClass(f"c{i}", (i, 0, 0), False) for i in range(5)))
    large = ClassSet("large", tuple(SemanticClass(f"c{i}", (i, 0, 0), False) for i in range(size)))
    places = np.sort(rng.choice(size, 5, replace=False))
    labels = np.repeat(np.repeat(rng.integers(0, 5, (2, 5, 6)), 3, 1), 3, 2)
    predictions = np.where(rng.random(labels.shape) < 0.3, rng.integers(0, 5, labels.shape), labels)
    void = rng.random(labels.shape) < 0.05
    protocol = Protocol(id="t", boundary_band=2, boundary_tolerances=(1, 3), distance_rings=(1, 2), calibration_bins=4)
    found = []
    for classes, ids in ((small, np.arange(5)), (large, places)):
        label = torch.from_numpy(np.where(void, IGNORE, ids[labels]))
        logits = torch.full((*labels.shape, len(classes)), -30.0)
        logits[..., torch.from_numpy(ids)] = 0.0
        logits.scatter_(-1, torch.from_numpy(ids[predictions]).unsqueeze(-1), 2.0)
        truth = describe_truth(label, protocol, scored=scored_classes(classes))
        found.append(count(truth, logits.log_softmax(dim=-1))[0])
    a, b = found
    for name in ("confusion", "boundary_confusion"):
        whole = b[name].view(2, size, size)
        assert torch.equal(a[name].view(2, 5, 5), whole[:, places][:, :, places])
        assert whole.sum() == a[name].sum(), "other classes have no pixel"
    for name, parts in (("boundary_iou", 6), ("boundary_f1", 8)):
        assert torch.equal(a[name].view(2, parts, 5), b[name].view(2, parts, size)[:, :, places])
    for name in ("ring_pixels", "ring_correct", "calibration_count", "pixels"):
        assert torch.equal(a[name], b[name])


def test_a_trunk_has_as_many_logits_as_there_are_classes() -> None:
    model = build_segmentor(unet() | {"num_classes": 3})
    assert model.num_classes == 3
    assert model.eval()(torch.zeros(1, 3, 32, 32)).logits.shape[1] == 3
    assert build_segmentor(unet()).num_classes == 19
