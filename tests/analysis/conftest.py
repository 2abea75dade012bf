"""Synthetic run directories: realistic counts with seed and image noise, and one run of each kind of trouble."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from flexseg.analysis.stats.records import load_records
from flexseg.analysis.stats.scores import Scores
from flexseg.analysis.stats.statistics import Difference
from flexseg.benchmark import Benchmark, Protocol, fingerprint, load_benchmark, select_rows
from flexseg.benchmark.reading import read_content
from flexseg.classes import NUM_CLASSES

ROOT = Path(__file__).parents[2]
LIBRARY = "today"
SHARES = np.array([30, 8, 20, 1.5, 1.2, 1.5, 0.4, 0.7, 14, 3, 9, 1.2, 0.3, 6, 0.8, 0.7, 0.5, 0.3, 0.9])
LEVELS = {
    "source_only": 23.0, "dginstyle": 34.3, "flexseg": 34.2, "flexseg_tuned": 36.4, "flexseg_no_gap": 36.0,
    "flexseg_no_ube": 34.9, "flexseg_no_has": 36.2, "constant_weight": 35.6, "dginstyle_aligned": 36.1,
    "flexseg_tuned_aligned": 37.3,
}  # fmt: skip
SHIFTS = {"clear_city": 10.0, "mixed": 4.0, "places": 5.0, "adverse": -4.0, "night": -13.0}
CONDITIONS = {"adverse": ["fog", "night", "rain", "snow"], "mixed": ["clear", "rain", "dusk"]}
OPTIONS: dict[str, tuple[Any, bool, str]] = {
    "gap": (True, False, "granular adaptive prototypes"),
    "ube": (True, False, "uncertainty boundary emphasis"),
    "has": (True, False, "hardness-aware sampling"),
    "lambda_gap": (0.5, False, "weight of the prototype loss"),
    "alpha": (3.0, False, "strength of the boundary emphasis"),
    "temperature": (0.07, False, "of the prototype softmax"),
    "kernels": ([3, 5, 7], True, "widths of the thin, medium and thick ring, at the rings' resolution"),
    "rings": ("feature", True, "the resolution at which rings are drawn: feature or label"),
    "boundary_kernel": (7, True, "width of the boundary that is emphasised, in label pixels"),
    "momentum": (0.99, True, "of the prototypes; the first update copies the mean"),
    "cell_weight": ("inverse", True, "w of a prototype cell: inverse update frequency, mean 1, clipped"),
    "cell_weight_clip": (5.0, True, "largest weight of a prototype cell"),
    "entropy_statistics": ("batch", True, "over what the mean and deviation of the entropy are taken"),
    "has_unit": ("percent", True, "the unit of t in the threshold: percent of training or iterations"),
    "has_midpoint": (50.0, True, "m of the threshold, in that unit"),
    "has_k": (0.05, False, "steepness of the threshold"),
    "has_ema": (0.9, True, "momentum of the hardness"),
}

SHOWS = [
    {"kind": "curves", "name": "has", "heading": "Hardness-aware sampling", "caption": "HAS over training.",
     "panels": {"has/threshold": "threshold", "has/effective_sample_size": "effective sample size",
                "has/generated_share": "share of generated data"}},
    {"kind": "vectors", "name": "prototypes", "heading": "Prototypes", "caption": "The prototypes of GAP.",
     "vectors": "prototypes", "counts": "updates", "groups": ["thin", "medium", "thick"]},
    {"kind": "maps", "name": "uncertainty", "heading": "Uncertainty", "caption": "Entropy and weight.",
     "units": {"entropy": "nats", "weight": ""}},
]  # fmt: skip
"""As a method declares them and ``run.json`` keeps them."""


def simulate(
    rng: np.random.Generator, level: float, ease: np.ndarray, truth: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Confusion counts (N, C, C) of images with truth (N, C) at about ``level`` % mIoU; and of the boundary band."""
    accuracy = np.clip(level / 100 + 0.25 + ease[:, None] + rng.normal(0, 0.04, truth.shape), 0.02, 0.98)
    accuracy = np.clip(accuracy * np.linspace(1.0, 0.75, NUM_CLASSES)[np.argsort(np.argsort(-SHARES))], 0.02, 0.98)
    hits = rng.binomial(truth, accuracy)
    confusion = np.zeros((*truth.shape, NUM_CLASSES), np.int64)
    spread = np.tile(SHARES / SHARES.sum(), (NUM_CLASSES, 1))
    np.fill_diagonal(spread, 0)
    spread /= spread.sum(1, keepdims=True)
    for index in range(NUM_CLASSES):
        confusion[:, index] = rng.multinomial(truth[:, index] - hits[:, index], spread[index])
        confusion[:, index, index] = hits[:, index]
    boundary = rng.binomial(confusion, np.where(np.eye(NUM_CLASSES, dtype=bool), 0.15, 0.3))
    return confusion, boundary


def ring_counts(confusion: np.ndarray, boundary: np.ndarray, protocol: Protocol) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and right pixels (N, R+1) of the rings, which add up to all pixels and all right pixels of each image.

    What lies within the boundary band is dealt to the rings within it, the rest to the others.
    """
    rng = np.random.default_rng(int(confusion.sum()))
    pixels, correct = (np.zeros((len(confusion), len(protocol.distance_rings) + 1), np.int64) for _ in range(2))
    inside = [place for place, outer in enumerate(protocol.distance_rings) if outer <= protocol.boundary_band]
    rest = [place for place in range(pixels.shape[1]) if place not in inside]
    for places, counts in ((inside, boundary), (rest, confusion - boundary)):
        left, right = counts.sum((1, 2)), np.trace(counts, axis1=1, axis2=2)
        for place in places:
            pixels[:, place] = left if place == places[-1] else left // 2
            correct[:, place] = rng.hypergeometric(right, left - right, pixels[:, place])
            left, right = left - pixels[:, place], right - correct[:, place]
    return pixels, correct


def boundary_counts(confusion: np.ndarray, widths: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Counts for boundary IoU (N, W, 3, C) and F1 (N, W, 4, C): shares of the counts that grow with the width."""
    hits, truth, predicted = np.diagonal(confusion, axis1=1, axis2=2), confusion.sum(2), confusion.sum(1)
    iou, f1 = [], []
    for width in widths:
        share = 1 - np.exp(-width / 4)
        near_truth, near_predicted = (truth * share).astype(int), (predicted * share).astype(int)
        both = np.minimum((hits * share * (0.6 + 0.3 * share)).astype(int), np.minimum(near_truth, near_predicted))
        iou.append(np.stack([both, near_truth, near_predicted], axis=1))
        found = hits * (1 - np.exp(-width))
        f1.append(np.stack([predicted // 5, found // 5, truth // 5, found // 5], axis=1).astype(int))
    return np.stack(iou, axis=1), np.stack(f1, axis=1)


def write_target(
    path: Path, confusion: np.ndarray, boundary: np.ndarray, conditions: list[str], meta: dict, protocol: Protocol
) -> None:
    """One ``evaluation/<target>.parquet``."""
    images, bins = len(confusion), protocol.calibration_bins
    ring_pixels, ring_correct = ring_counts(confusion, boundary, protocol)
    boundary_iou, boundary_f1 = boundary_counts(confusion, protocol.boundary_tolerances)
    pixels = confusion.sum((1, 2))
    count = np.tile(pixels[:, None] // bins, (1, bins)).astype(np.int32)
    confidence = count * (np.arange(bins) + 0.5) / bins

    def lists(values: np.ndarray, kind: pa.DataType) -> pa.Array:
        flat = pa.array(values.reshape(-1), kind)
        return pa.FixedSizeListArray.from_arrays(flat, values[0].size)

    table = pa.table(
        {
            "image": [f"{path.stem}_{index:04d}" for index in range(images)],
            "condition": conditions,
            "pixels": pa.array(pixels, pa.int64()),
            "confusion": lists(confusion, pa.int32()),
            "boundary_confusion": lists(boundary, pa.int32()),
            "calibration_count": lists(count, pa.int32()),
            "calibration_correct": lists((confidence * 0.9).astype(np.int32), pa.int32()),
            "calibration_confidence": lists(confidence, pa.float64()),
            "nll_sum": pa.array(pixels * 1.25, pa.float64()),
            "ring_pixels": lists(ring_pixels, pa.int32()),
            "ring_correct": lists(ring_correct, pa.int32()),
            "boundary_iou": lists(boundary_iou, pa.int32()),
            "boundary_f1": lists(boundary_f1, pa.int32()),
        }
    ).replace_schema_metadata(meta)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def write_run(benchmark: Benchmark, row: str, seed: int, folder: Path, images: int, **changes: Any) -> None:
    """One finished run directory without its predictions."""
    method = benchmark.row(row).method
    made = fingerprint(benchmark.run_definition(row, seed))
    rng = np.random.default_rng([seed, *row.encode()])
    drift = np.random.default_rng([77, seed]).normal(0, 0.8)
    for number, target in enumerate(benchmark.targets):
        shared = np.random.default_rng([5, number])
        truth = shared.multinomial(96 * 192 - 400, SHARES / SHARES.sum(), size=images)
        truth = np.where(shared.random((images, NUM_CLASSES)) < 0.3 + SHARES / 12, truth, 0)
        ease = shared.normal(0, 0.08, images)
        level = LEVELS.get(row, 35.0) + SHIFTS.get(target, 0.0) + drift + rng.normal(0, 0.5)
        confusion, boundary = simulate(rng, level, ease, truth)
        names = CONDITIONS.get(target, ["night" if target == "night" else "clear"])
        conditions = [names[index % len(names)] for index in range(images)]
        meta = {
            "protocol": benchmark.protocol.id, "label_map": benchmark.protocol.label_map, "benchmark": benchmark.name,
            "row": row, "seed": str(seed), "target": target, "fingerprint": made,
            "boundary_band": str(benchmark.protocol.boundary_band),
            "boundary_tolerances": json.dumps(benchmark.protocol.boundary_tolerances),
            "distance_rings": json.dumps(benchmark.protocol.distance_rings),
        }  # fmt: skip
        path = folder / "evaluation" / f"{target}.parquet"
        write_target(path, confusion, boundary, conditions, meta, benchmark.protocol)
    written = benchmark.row(row).options
    options = {
        name: {
            "value": written.get(name, default),
            "default": default,
            "origin": "assumed" if assumed else "published",
            "help": text,
        }
        for name, (default, assumed, text) in (OPTIONS if method == "flexseg" else {}).items()
    }
    run = {
        "status": "finished", "fingerprint": made, "options": options, "library": LIBRARY,
        "shows": SHOWS if method == "flexseg" else [],
        "definition": benchmark.run_definition(row, seed),
        "git": {"commit": "0123456789abcdef0123456789abcdef01234567", "dirty": False}, "versions": {"torch": "2.9.0"},
        "machine": {"processor": "Example CPU @ 2.50GHz", "cores": 2, "system": "Linux x86_64"}, "device": "cpu",
        "started": "2026-01-01T00:00:00", "finished": "2026-01-01T00:00:40", "train_seconds": 38.0 + seed,
        "images_per_second": 250.0 - seed, "peak_memory_bytes": 1_200_000_000, "parameters": 912_345, "data": {},
        "train_cpu_seconds": 36.0 + seed, "step_flops": 5_000_000_000, "inference_flops": 210_000_000,
        "inference_seconds": 0.004, "trained_parameters": 930_000,
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(run | changes))
    steps = benchmark.training.iterations
    every = max(1, min(benchmark.training.log_every, steps // 4))
    with (folder / "train.jsonl").open("w") as file:
        for step in range(every, steps + 1, every):
            part = step / steps
            loss = 2.2 * np.exp(-3 * part) + 0.5 + rng.normal(0, 0.05)
            line = {"iteration": step, "learning_rate": 0.003 * (1 - part), "loss": loss, "images_per_second": 250.0}
            line["loss/ce"] = loss if method != "flexseg" else loss * 0.8
            if options and options["gap"]["value"]:
                line |= {"loss/gap": loss * 0.2, "gap/pixels": 9000.0}
            if options and options["has"]["value"]:
                threshold = 1 / (1 + np.exp(0.05 * (100 * part - 50)))
                size = 1200 - 300 * part + rng.normal(0, 10)
                share = 0.5 + 0.05 * part + rng.normal(0, 0.01)
                line |= {"has/threshold": threshold, "has/effective_sample_size": size, "has/generated_share": share}
            file.write(json.dumps(line) + "\n")


def write_pictures(benchmark: Benchmark, results: Path) -> None:
    """Data indices, images, labels and predictions for the panels."""
    height, width = benchmark.world.height, benchmark.world.width
    top = results / benchmark.name
    for target in benchmark.targets:
        folder = top / "data" / target
        rng = np.random.default_rng([9, *target.encode()])
        rows = []
        for index in range(benchmark.predictions):
            blocks = rng.integers(0, NUM_CLASSES, (4, 8)).astype(np.uint8)
            label = np.kron(blocks, np.ones((-(-height // 4), -(-width // 8)), np.uint8))[:height, :width].copy()
            label[-6:] = 255
            image = rng.integers(0, 255, (height, width, 3)).astype(np.uint8)
            image[: height // 2] = (120, 160, 220)
            name = f"{target}_{index:04d}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f"{name}_image.png")
            Image.fromarray(label).save(folder / f"{name}_label.png")
            rows.append({"id": name, "image": f"{name}_image.png", "label": f"{name}_label.png", "split": "test",
                         "condition": "clear", "height": height, "width": width, "sha256": ""})  # fmt: skip
            for row in benchmark.rows:
                for seed in benchmark.seeds:
                    run = top / row / f"seed-{seed}"
                    if (run / "run.json").is_file():
                        noisy = np.where(rng.random(label.shape) < 0.1, (label + 1) % NUM_CLASSES, label % NUM_CLASSES)
                        path = run / "predictions" / target / f"{name}.png"
                        path.parent.mkdir(parents=True, exist_ok=True)
                        Image.fromarray(noisy.astype(np.uint8)).save(path)
        if rows:
            pq.write_table(pa.Table.from_pylist(rows), folder / "index.parquet")


def build(
    top: Path,
    names: list[str],
    seeds: list[int],
    images: int,
    incidents: bool = True,
    claims: dict[str, Any] | None = None,
    **changes: Any,
) -> tuple[Benchmark, Path]:
    """A benchmark with finished runs: (benchmark of just ``names``, results)."""
    content = read_content("streetworld_small", ROOT / "benchmarks")
    content |= {"extends": "", "title": "Street world", "seeds": seeds} | changes
    (top / "benchmarks").mkdir(parents=True)
    if claims is not None:
        content["claims"] = "claims.yaml"
        (top / "benchmarks" / "claims.yaml").write_text(yaml.safe_dump(claims, sort_keys=False))
    (top / "benchmarks" / "streetworld.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    methods = top / "methods"
    methods.mkdir()
    for method in ("source_only", "dginstyle", "flexseg", "boundary_policy"):
        (methods / f"{method}.py").write_text(f'"""{method}"""\n')
    benchmark = load_benchmark("streetworld", top / "benchmarks")
    benchmark = select_rows(benchmark, rows=",".join(names)).selected_as("")
    results = top / "results"
    for row in names:
        for seed in seeds:
            folder = results / benchmark.name / row / f"seed-{seed}"
            write_run(benchmark, row, seed, folder, images)
    if incidents:
        first, second, last = results / benchmark.name / names[-1], results / benchmark.name / names[3], seeds[-1]
        shutil.rmtree(first / f"seed-{last}")
        (first / f"seed-{last}").mkdir()
        (first / f"seed-{last}" / "failure.json").write_text(
            json.dumps({"status": "failed", "reason": "non-finite loss at iteration 371", "traceback": "…"})
        )
        shutil.rmtree(first / f"seed-{seeds[0]}")
        edit_run(second / f"seed-{last}", fingerprint="0" * 16)
        edit_run(results / benchmark.name / names[4] / f"seed-{last}", library="feedfacefeedface")
        (results / benchmark.name / names[2] / f"seed-{last}" / "evaluation" / "night.parquet").unlink()
    write_pictures(benchmark, results)
    return benchmark, results


def edit_run(folder: Path, **changes: Any) -> None:
    """Change values of a ``run.json``."""
    path = folder / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture(autouse=True)
def _today(monkeypatch: pytest.MonkeyPatch) -> None:
    """Today's code digest, whatever today's code is."""
    monkeypatch.setattr("flexseg.analysis.stats.records.code_digest", lambda *_: LIBRARY)


@pytest.fixture(scope="session")
def build_results() -> Callable[..., tuple[Benchmark, Path]]:
    """:func:`build`, into a folder of the caller."""
    return build


Builder = Callable[..., tuple[Benchmark, Path]]


@pytest.fixture
def builder(tmp_path: Path) -> Builder:
    """:func:`build` in this test's folder."""
    return lambda *arguments, **changes: build(tmp_path / "built", *arguments, **changes)


@pytest.fixture(scope="session")
def run_writer() -> Callable[..., None]:
    """:func:`write_run`, for benchmarks of a test's own."""
    return write_run


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Benchmark, Path]:
    """Ten rows × three seeds × 24 images with one failed, missing, stale and old run and one missing target."""
    return build(tmp_path_factory.mktemp("small"), list(LEVELS), [0, 1, 2], 24, predictions=1)


@pytest.fixture(scope="session")
def scores(small: tuple[Benchmark, Path]) -> Scores:
    """The scores of :func:`small`, from 200 resamplings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flexseg.analysis.stats.records.code_digest", lambda *_: LIBRARY)
        return Scores(load_records(*small), replicates=200)


HOSTILE = "</script><script>window.broken=1</script><img src=x onerror=window.broken=1>\u2028<!--{{data}}&amp;'\""


@pytest.fixture
def hostile(builder: Builder) -> tuple[tuple[Benchmark, Path], str]:
    """Results whose every name that a user writes is an attempt to run a script, and that name."""
    benchmark, results = builder(["dginstyle", "flexseg"], [0, 1], 8, incidents=False, predictions=1)
    rows = {name: row.model_copy(update={"title": HOSTILE}) for name, row in benchmark.rows.items()}
    domains = benchmark.domains | {
        name: benchmark.domains[name].model_copy(update={"title": HOSTILE}) for name in ("adverse", "night")
    }
    folder = results / benchmark.name / "flexseg"
    info = json.loads((folder / "seed-0" / "run.json").read_text())
    info["options"]["rings"] |= {"value": HOSTILE, "help": HOSTILE}
    info["git"]["commit"] = info["machine"]["processor"] = HOSTILE
    (folder / "seed-0" / "run.json").write_text(json.dumps(info))
    with (folder / "seed-0" / "train.jsonl").open("a") as file:
        file.write(json.dumps({"iteration": 10**6, f"loss/{HOSTILE}": 1.0}))
    shutil.rmtree(folder / "seed-1")
    (folder / "seed-1").mkdir()
    (folder / "seed-1" / "failure.json").write_text(json.dumps({"status": "failed", "reason": HOSTILE}))
    index = results / benchmark.name / "data" / "adverse" / "index.parquet"
    lines = [line | {"condition": HOSTILE} for line in pq.read_table(index).to_pylist()]
    pq.write_table(pa.Table.from_pylist(lines), index)
    changes = {"title": HOSTILE, "description": HOSTILE, "rows": rows, "domains": domains}
    return (benchmark.model_copy(update=changes), results), HOSTILE


@pytest.fixture
def forty(builder: Builder, monkeypatch: pytest.MonkeyPatch) -> tuple[Benchmark, Path]:
    """Results of forty rows, whose differences are not resampled, since that takes long."""
    rows = {f"row_{index:02d}": {"method": "flexseg", "alpha": float(index)} for index in range(40)}
    ablation = {"components": {"GAP": "gap"}, "full": ["row_01"], "none": "row_00", "panels": ["row_00", "row_01"]}
    same = Difference(-12.3456, -13.4567, -11.2345, 0.0123456, 3)
    monkeypatch.setattr(Scores, "against", lambda self, *_: dict.fromkeys(self.columns, same))
    return builder([*rows], [0, 1, 2], 4, incidents=False, predictions=3, rows=rows, reference="row_00",
                   studies={"default": [*rows]}, ablation=ablation, tuning=None)  # fmt: skip


SWITCHES = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync",
            "--disable-component-update", "--no-first-run", "--disable-dev-shm-usage"]  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, driven by Playwright; skips, with the reason, where either is missing."""
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="browser tests need Playwright's Python package: pip install playwright"
    )
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("browser tests need Chromium: apt install chromium")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=SWITCHES)
        yield opened
        opened.close()
