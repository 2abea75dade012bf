"""The words of the page: what was measured, the facts of a run, and a methods paragraph as a paper would print it.

All are written from the benchmark file and from what the runs recorded, so they cannot disagree with the numbers.
"""

from __future__ import annotations

from flexseg.analysis.stats.domains import (
    class_places,
    images_text,
    protocol_text,
    target_title,
    title,
    training_text,
    unseen_text,
)
from flexseg.analysis.stats.scores import Scores
from flexseg.analysis.tables.content import provenance
from flexseg.analysis.tables.origins import and_list, commit, machine, plural, seeds_a_row, summarise_runs
from flexseg.analysis.tables.recipes import initial_weights, optimiser_text, recipe_parts, trunk_parts


def summary(scores: Scores) -> str:
    """What was measured, in two sentences."""
    benchmark = scores.benchmark
    foreign = sum(benchmark.row(row).foreign is not None for row in benchmark.rows)
    rows, targets = len(benchmark.rows) - foreign, len(benchmark.targets)
    brought = f"{plural(foreign, 'row')} came from elsewhere. " if foreign else ""
    seen = any(map(benchmark.targets_trained_on, benchmark.rows))
    return (
        f"{plural(rows, 'setting')} of training {'was' if rows == 1 else 'were'} run with {seeds_a_row(benchmark)} "
        f"{'' if rows == 1 else 'each '}on one source, under one protocol. {brought}"
        f"Every model was tested on {plural(targets, 'target domain')}{'' if seen else ' that training never saw'} "
        f"({and_list([target_title(scores, target) for target in benchmark.targets])})"
        f"{f'; {unseen_text(scores)}' if seen else ''}."
    )


def facts(scores: Scores) -> list[tuple[str, str]]:
    """Protocol, seeds and provenance: (name, value)."""
    benchmark, records = scores.benchmark, scores.records
    return [
        ("Protocol", f"{benchmark.protocol.id} ({protocol_text(scores)})"),
        ("Seeds", ", ".join(map(str, benchmark.seeds))),
        ("Runs", f"{len(records.finished())} of {len(records.runs)} finished"),
        *provenance(scores),
    ]


def methods_text(scores: Scores) -> list[str]:
    """The paragraphs of a methods section: data, training, evaluation and statistics, provenance."""
    return [_data(scores), _training(scores), _evaluation(scores), _provenance(scores)]


def _data(scores: Scores) -> str:
    benchmark = scores.benchmark
    world, domains = benchmark.world, benchmark.domains
    source, generated = domains[benchmark.source], domains[benchmark.generated]
    tests = [f"{target_title(scores, target)} ({images_text(scores, target)})" for target in benchmark.targets]
    others = sorted({benchmark.row(row).generated for row in benchmark.rows} - {"", benchmark.generated})
    world_only = all(domains[target].rendered for target in benchmark.targets)
    if world is not None and source.rendered and generated.rendered:
        text = (
            f"All {'' if world_only else 'training '}images are rendered by version {world.version} of a procedural "
            f"street world at {world.height} × {world.width} pixels. The training data are {source.train} images of "
            f"the source and, for the rows that use them, {generated.train} generated images: source layouts painted "
            f"again, their outlines displaced against the labels with strength {generated.misalignment:g}."
        )
    else:
        text = f"The training data are {training_text(scores)}."
    for name in others:
        strength = domains[name].misalignment
        how = "" if strength is None else f" (strength {strength:g})"
        text += f" Some rows use “{title(scores, name)}” instead{how}."
    count = plural(len(benchmark.targets), "unseen target domain")
    return text + f" We test on {count}: {and_list(tests)}."


def _training(scores: Scores) -> str:
    benchmark = scores.benchmark
    training = benchmark.training
    parts = trunk_parts(benchmark.model)
    counts = sorted({int(run.info["parameters"]) for run in scores.records.finished() if run.info.get("parameters")})
    sizes = list(dict.fromkeys(f"{count / 1e6:.2f} M" for count in counts))
    if sizes:
        span = sizes[0] if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
        parts.append(f"{span} parameters{', as some methods change layers' if len(sizes) > 1 else ''}")
    head = training.head_learning_rate_factor
    rate = f"learning rate {training.learning_rate:g}" + (f", {head:g} times that for the head" if head != 1 else "")
    warm = f"linear warm-up over {training.warmup} iterations, " if training.warmup else ""
    low, high = training.scale
    scaled = f", scaled by {low:g}–{high:g}" if (low, high) != (1.0, 1.0) else ""
    flips = ", flipped horizontally at random" if training.flip else ", without flips"
    average = (
        f" We evaluate the exponential moving average of the weights (decay {training.ema:g}) after the last iteration."
        if training.ema
        else " We evaluate the weights after the last iteration."
    )
    recipe = recipe_parts(training)
    also = f" All rows share: {and_list(recipe)}." if recipe else ""
    return (
        f"All rows start from the same network ({', '.join(parts)}) from {initial_weights(benchmark.model)} for "
        f"{training.iterations} iterations with {optimiser_text(training)} ({rate}, weight decay "
        f"{training.weight_decay:g}), {warm}"
        f"polynomial decay of power {training.power:g}, batch {training.batch_size}, crops of {training.crop[0]} × "
        f"{training.crop[1]} pixels{scaled}{flips}.{also}{average} No target image is used for training or for "
        "choosing a setting or a checkpoint."
    )


def _evaluation(scores: Scores) -> str:
    benchmark = scores.benchmark
    seeds, targets = seeds_a_row(benchmark), len(benchmark.targets)
    averages = [
        f"{name} is the mean over {and_list([target_title(scores, member) for member in members])}"
        for name, members in benchmark.averages.items()
    ]
    text = (
        f"We report mIoU in percent over {_classes(scores)}, from pixel counts summed over all test "
        "images of a target; a class without a truth pixel is left out for every row alike."
    )
    text += f" {'; '.join(averages)}." if averages else ""
    if len(benchmark.seeds) == 1:
        return f"{text} Results come from a single seed, so no interval can be given."
    if scores.own_variance:
        text += (
            f" Results are means over {seeds} with 95 % t-intervals. Differences are paired by seed and test "
            "image; their 95 % intervals join their own variance over seeds with the image variance that the seeds "
            f"share, from {scores.replicates} bootstrap replicates of the test images, with Satterthwaite's degrees of "
            "freedom"
        )
        return text + (f", Holm-adjusted over the {targets} targets." if targets > 1 else ".")
    text += (
        f" Results are means over {seeds} with 95 % t-intervals. Differences are paired by seed and test image; "
        "their 95 % intervals join the residual variance of all rows × seeds with the image variance that the seeds "
        f"share, from {scores.replicates} bootstrap replicates of the test images, by a weighted quantile (after "
        "Cochran and Cox)"
    )
    return text + (f", Holm-adjusted over the {targets} targets." if targets > 1 else ".")


def _classes(scores: Scores) -> str:
    merged, classes = scores.benchmark.protocol.classes, scores.benchmark.class_set
    if not merged or merged == classes.id:
        named = "the {} Cityscapes classes" if classes.is_default else f"the {{}} classes of {classes.id}"
        return named.format(len(classes))
    return f"{len(class_places(scores))} classes, into which predictions of the {len(classes)} are merged ({merged})"


def _provenance(scores: Scores) -> str:
    records = scores.records
    runs, total = records.trainings(), len(records.runs)
    text = f"{len(records.finished())} of {plural(total, 'run')} finished"
    missing = [f"{records.benchmark.row(row).title}: {note}" for row, note in records.all_notes()]
    text += f" (not in the numbers: {'; '.join(missing)})." if missing else "."
    if runs:
        text += f" Code: commit {summarise_runs(runs, commit)}. Machine: {summarise_runs(runs, machine)}."
    versions = {run.info.get("versions", {}).get("torch") for run in runs} - {None}
    return text + (f" PyTorch {', '.join(sorted(versions))}." if versions else "")
