"""Check a benchmark before any work, beyond what its file alone can tell."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from flexseg.benchmark import Benchmark, Run
from flexseg.errors import MissingExtra, RunError, UserError
from flexseg.files import digest
from flexseg.tasks.needs import compare_needs, measure_needs, within_memory


def check_benchmark(benchmark: Benchmark, results: Path = Path("results")) -> list[str]:
    """Check methods, their options, the trunks, the world's version, and what all of it needs of the machine.

    Returns lines to print. A broken method file or a missing package is a line and not an error, because
    it only affects its own rows.

    Raises:
        UserError: an unknown method, a wrong option, a trunk that cannot be built, another version of the world, or too
            little disk.
    """
    _check_world(benchmark)
    lines = [*_check_methods(benchmark), *find_tests_in_training(benchmark)]
    trunks = _check_trunks(benchmark, lines)
    lines += _check_models(benchmark, [line.split()[1] for line in lines if line.startswith("row ")])
    lines += _check_foreign(benchmark)
    own = trunks.get(digest(benchmark.counted(benchmark.model)))
    lines += compare_needs(measure_needs(benchmark, trunks, results), results, benchmark.name)
    size = f", trunk of {sum(p.numel() for p in own.parameters()) / 1e6:.2f} M parameters" if own else ""
    return [*lines, f"{benchmark.name}: {len(benchmark.rows)} rows{size}, ready"]


def _check_world(benchmark: Benchmark) -> None:
    from flexseg import world

    if benchmark.world is None:
        return
    try:
        known = world.version_of(benchmark.world.version).domains
    except UserError as error:
        raise UserError(f"benchmark {benchmark.name}: world.version: {error}") from None
    for name, domain in benchmark.domains.items():
        if domain.rendered and domain.world not in known:
            raise UserError(
                f"benchmark {benchmark.name}: domains.{name}.world: the street world has no domain {domain.world!r}; "
                f"it has {', '.join(known)}"
            )


def find_tests_in_training(benchmark: Benchmark) -> list[str]:
    """A line for each row that may be trained on the images that it is tested on."""
    if benchmark.runs:
        return []
    return [
        f"row {row} may be trained on the very images that it is tested on: `train:` and `test:` of "
        f"{', '.join(targets)} are the same split. Its numbers there say nothing about unseen images"
        for row in benchmark.rows
        if (targets := benchmark.targets_trained_on(row, images=True))
    ]


def _check_methods(benchmark: Benchmark) -> list[str]:
    """Check every row's method and options; return lines on those that cannot be loaded."""
    from flexseg.method_files import ends_the_process, load_method, load_row, method_names

    methods, lines, problems = benchmark.methods, [], []
    used = {name: [path.stem for path in benchmark.method_files(name)] for name in benchmark.trained_rows}
    ends = {method: ends_the_process(method, methods) for method in {each for names in used.values() for each in names}}
    for name, names in used.items():
        for method in set(names) - set(method_names(methods)):
            load_method(method, methods)
        if ending := next(filter(None, (ends[method] for method in names)), ""):
            lines.append(f"row {name} will be shown as failed: {ending}")
            continue
        try:
            for method in names:
                load_method(method, methods)
        except UserError as error:
            state = "not run" if isinstance(error, MissingExtra) else "failed"
            lines.append(f"row {name} will be shown as {state}: {error}")
            continue
        try:
            load_row(benchmark.row(name), methods)
        except UserError as error:
            problems.append(f"  rows.{name}: {error}")
    if problems:
        raise UserError(f"benchmark {benchmark.name} has wrong options:\n" + "\n".join(problems))
    return lines


def _check_trunks(benchmark: Benchmark, lines: list[str]) -> dict[str, Any]:
    """Build every trunk once, check it against its rows' crops, and return it by the digest of its description.

    If an optional package is missing, there is no trunk but a line for each row.
    """
    from flexseg.engine.norms import WHAT_TO_DO, lone_norm
    from flexseg.models import build_segmentor

    built: dict[str, Any] = {}
    checked: dict[tuple[str, int, tuple[int, int]], str] = {}
    missing: dict[str, str] = {}
    for name in benchmark.trained_rows:
        model = benchmark.model_of(name)
        key = digest(model)
        if key not in built and key not in missing:
            try:
                with within_memory():
                    built[key] = build_segmentor(model, pretrained=False)
            except MissingExtra as error:
                missing[key] = str(error)
        if key in missing:
            lines.append(f"row {name} will be shown as not run: {missing[key]}")
            continue
        divisor = built[key].size_divisor
        training = benchmark.training_of(name)
        height, width = training.crop
        if height % divisor or width % divisor:
            raise UserError(
                f"benchmark {benchmark.name}: training.crop: the trunk of row {name} takes multiples of {divisor} "
                f"pixels only, not {height}×{width}"
            )
        part = training.batch_size // (training.accumulate or 1)
        if part > 1:  # with two images or more, every channel has two values or more
            continue
        if (key, part, training.crop) not in checked:
            checked[key, part, training.crop] = lone_norm(built[key], part, training.crop)
        if layer := checked[key, part, training.crop]:
            raise UserError(
                f"benchmark {benchmark.name}: rows.{name}: {layer} normalises over a batch, and with one image "
                f"a step gets one value per channel: {WHAT_TO_DO}"
            )
    return built


def _check_models(benchmark: Benchmark, shown: Collection[str]) -> list[str]:
    """Let every row's method build its model, with random weights; return lines on those that cannot.

    Args:
        shown: the rows of which it is known already that they cannot run.
    """
    import numpy as np

    from flexseg.method import Setup
    from flexseg.method_files import load_row

    lines, seen = [], dict[str, str]()
    pixels = np.zeros((0, len(benchmark.class_set)), dtype=np.int64)
    for name in benchmark.trained_rows:
        row, model = benchmark.row(name), benchmark.model_of(name)
        if name in shown or benchmark.runs:
            continue
        key = digest([row.method, row.base, row.options, model])
        if key not in seen:
            method, options = load_row(row, benchmark.methods)
            setup = Setup(0, benchmark.training_of(name).iterations, np.zeros(0, dtype=np.int8), pixels)
            trunk = {part: value for part, value in model.items() if part != "weights"}
            try:
                with within_memory():
                    method(options, setup).build_model(trunk)
                seen[key] = ""
            except MissingExtra as error:
                seen[key] = f"not run: {error}"
            except (Exception, SystemExit) as error:  # a method may raise anything at all
                reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
                seen[key] = f"failed: {reason}"
        if seen[key]:
            lines.append(f"row {name} will be shown as {seen[key]}")
    return lines


def _check_foreign(benchmark: Benchmark) -> list[str]:
    """Load what was made elsewhere; return lines on the rows whose networks are missing or do not fit."""
    from flexseg.tasks.jobs import load_network

    lines = []
    for name in benchmark.rows:
        run = Run(benchmark, name, benchmark.seeds[0])
        if run.foreign is None or run.foreign.has_seeds:
            continue
        try:
            if run.foreign.missing:
                raise RunError(run.foreign.missing)
            if run.foreign.kind != "predictions":
                load_network(run)
        except UserError as error:
            state = "not run" if isinstance(error, MissingExtra) else "failed"
            lines.append(f"row {name} will be shown as {state}: {error}")
    return lines


def require_data(benchmark: Benchmark, results: Path) -> None:
    """Check that all data sets and weights are there; weights are downloaded if the benchmark gives a URL.

    Raises:
        UserError: something is missing or incomplete; says what, where it was looked for, and where to get it.
    """
    from flexseg.tasks.doctor import require

    require(benchmark, results)
    described = [
        model["weights"] for row in benchmark.trained_rows if (model := benchmark.model_of(row)).get("weights")
    ]
    if described and not benchmark.runs:
        from flexseg.models.weights import Weights, find

        for weights in {Weights.of(each) for each in described}:
            find(weights)
