"""Every quantity is defined: in words, with a unit and a direction, by a function of counts that are there."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from flexseg.analysis.stats.definitions import Quantity, quantities, ring_names
from flexseg.analysis.stats.scores import Scores
from flexseg.benchmark import Benchmark, Protocol, benchmark_names, load_benchmark

ROOT = Path(__file__).parents[2]
PROTOCOL = Protocol(id="any", boundary_band=2)
Built = tuple[Benchmark, Path]


def sections() -> dict[str, str]:
    """The definitions in docs/metrics.md by their headings."""
    text = (ROOT / "docs" / "metrics.md").read_text().split("\n# Quantities\n")[1].split("\n# Statistics\n")[0]
    return {part.split("\n")[0].strip(): part for part in re.split(r"^### ", text, flags=re.MULTILINE)[1:]}


def heading_of(quantity: Quantity) -> str:
    """The heading that defines a quantity; those that differ in a width share one."""
    if quantity.counts == "rings" and quantity.name != "deep-interior error":
        return "thin-, medium- and thick-boundary error"
    return re.sub(r"\d+ px", "d px", quantity.name)


@pytest.mark.parametrize("benchmark", [None, *benchmark_names(ROOT / "benchmarks")])
def test_every_quantity_is_defined_in_words(benchmark: str | None) -> None:
    protocol = load_benchmark(benchmark, ROOT / "benchmarks").protocol if benchmark else PROTOCOL
    written = sections()
    for quantity in quantities(protocol).values():
        heading = heading_of(quantity)
        assert heading in written, quantity.name
        section = written[heading]
        assert section.split("\n")[1].startswith(f"{quantity.arrow} {quantity.unit}."), quantity.name
        named = re.sub(r"\d+ px", "d px", quantity.name)
        assert named == heading or f"`{named}`" in section
    headings = {heading_of(quantity) for quantity in quantities(PROTOCOL).values()}
    assert set(written) == headings | {"mIoU gain over source only"}


def test_names_follow_the_protocol() -> None:
    other = Protocol(id="any", boundary_band=3, boundary_tolerances=(3,), distance_rings=(2, 5))
    names = list(quantities(other))
    assert [name for name in names if name.startswith("boundary IoU")] == ["boundary IoU (3 px)"]
    assert ring_names(other) == ["ring (up to 2 px)", "ring (up to 5 px)", "deep-interior"]
    assert quantities(other)["ring (up to 5 px) error"].description == "wrong pixels at 3 to 5 px from another class"
    assert quantities(PROTOCOL)["deep-interior error"].description == "wrong pixels beyond 3 px from another class"
    assert ring_names(PROTOCOL)[:3] == ["thin-boundary", "medium-boundary", "thick-boundary"]


def test_values_of_a_record_by_their_definitions(scores: Scores) -> None:
    """Each width and ring takes its own counts, and percent are percent."""
    record = scores.records.runs["dginstyle", 0].targets["adverse"]
    for place, width in enumerate((1, 2, 4)):
        both, truth, predicted = record.total("boundary_iou")[place].astype(float)
        present = truth > 0
        expected = 100 * np.mean((both / (truth + predicted - both))[present])
        assert scores.quantities[f"boundary IoU ({width} px)"].compute(record) == pytest.approx(expected)
        claimed, hit, real, found = record.total("boundary_f1")[place].astype(float)
        precision, recall = (hit / claimed)[real > 0], (found / real)[real > 0]
        expected = 100 * np.mean(2 * precision * recall / (precision + recall))
        assert scores.quantities[f"boundary F1 ({width} px)"].compute(record) == pytest.approx(expected)
    for place, name in enumerate(ring_names(PROTOCOL)):
        pixels, right = record.total("rings")[:, place]
        expected = 100 * (1 - right / pixels)
        assert scores.quantities[f"{name} error"].compute(record) == pytest.approx(expected)
    band, rest = record.total("band"), record.total("classes") - record.total("band")
    for name, (hits, truth, _) in (("boundary error", band), ("interior error", rest)):
        assert scores.quantities[name].compute(record) == pytest.approx(100 * (1 - hits.sum() / truth.sum()))
    assert scores.quantities["negative log-likelihood"].compute(record) == pytest.approx(1.25)
    lowest = min(scores.condition_mean("dginstyle", "adverse", name).value for name in record.conditions)
    worst = np.mean([scores.per_seed("dginstyle", "adverse", "worst condition mIoU")])
    assert worst <= lowest + 1e-9
