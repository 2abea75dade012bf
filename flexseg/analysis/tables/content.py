"""The words of the reports, whatever they look like: question, answer, certainty, protocol and provenance."""

from __future__ import annotations

from typing import Literal

from flexseg.analysis.stats.domains import data_notes, protocol_text, target_title, tested_images, training_text
from flexseg.analysis.stats.formats import number
from flexseg.analysis.stats.scores import Scores
from flexseg.analysis.stats.verdict import ALIGNMENT, COMPONENTS, HELP, power_statement, verdict
from flexseg.analysis.tables.origins import (
    and_list,
    code_text,
    commit,
    exceptions,
    find_assumed,
    machine,
    other_code,
    plural,
    summarise_runs,
)
from flexseg.analysis.tables.recipes import initial_weights, optimiser_text, recipe_parts, trunk_parts
from flexseg.citation import Work, cite_methods, suite
from flexseg.sources import paper_of

Kind = Literal["comparison", "ablation"]
LEADS: dict[Kind, tuple[str, ...]] = {"comparison": (HELP,), "ablation": (COMPONENTS, ALIGNMENT)}
"""The findings that answer the question of a report and stand on its first page; all follow on the next."""


def describe(scores: Scores) -> str:
    """What the benchmark is, and of what its targets are analogues."""
    return " ".join([*scores.benchmark.description.split(), analogues(scores)]).strip()


def analogues(scores: Scores) -> str:
    """That the targets are analogues and of what; empty if the benchmark names none."""
    domains = scores.benchmark.domains
    named = [
        f"{target_title(scores, target)} of {domains[target].analogue_of}"
        for target in scores.benchmark.targets
        if domains[target].analogue_of
    ]
    if not named:
        return ""
    return (
        f"The targets are analogues in structure ({and_list(named)}), never the data sets themselves. These numbers "
        "are evidence about a mechanism under controlled conditions and cannot be compared with published ones."
    )


def question(scores: Scores, kind: Kind) -> str:
    """What a report of ``kind`` answers, in one sentence."""
    benchmark = scores.benchmark
    targets = plural(len(benchmark.targets), "target domain")
    if not any(map(benchmark.targets_trained_on, benchmark.rows)):
        targets += " that training never saw"
    if kind == "comparison":
        reference = _titles(scores, [benchmark.reference])
        others = [row for row in benchmark.rows if row != benchmark.reference]
        if not others:
            return f"What does {reference} score on {targets}?"
        if len(others) == 1:
            return f"Does {_titles(scores, others)} score higher than {reference} on {targets}?"
        return f"Which of {len(others)} settings of training score higher than {reference} on {targets}?"
    full = [row for row in benchmark.ablation.full if row in benchmark.rows]
    whole = _titles(scores, full) or "the full method"
    return f"What does each component ({', '.join(benchmark.ablation.components)}) add to {whole} on {targets}?"


def answers(scores: Scores, kind: Kind) -> list[str]:
    """The verdict of a report in a few sentences, each a paragraph."""
    found = verdict(scores)
    leads = [answer for question, answer in found if question in LEADS[kind]] or [answer for _, answer in found]
    return [*leads, *_tally(scores)] if kind == "comparison" else leads


def _tally(scores: Scores) -> list[str]:
    """How many rows score higher and lower than the reference; nothing where no row has two seeds in common with it."""
    benchmark, main = scores.benchmark, scores.main
    others = [row for row in benchmark.rows if row != benchmark.reference]
    found = [scores.against(row, benchmark.reference)[main] for row in others]
    judged = [difference for difference in found if difference.n > 1]
    if not judged:
        return []
    higher = sum(each.shown and each.value > 0 for each in judged)
    lower = sum(each.shown and each.value < 0 for each in judged)
    text = (
        f"Of the other {plural(len(others), 'row')}, {higher} {'scores' if higher == 1 else 'score'} higher on {main} "
        f"than {_titles(scores, [benchmark.reference])} and {lower} {'scores' if lower == 1 else 'score'} lower; for "
        f"{len(judged) - higher - lower} no difference could be shown"
    )
    unknown = len(others) - len(judged)
    return [text + (f", and {unknown} cannot be judged for want of runs." if unknown else ".")]


def certainty(scores: Scores) -> str:
    """What the seeds could show, and how many runs the numbers rest on."""
    benchmark, finished = scores.benchmark, len(scores.records.finished())
    planned = sum(len(benchmark.planned_seeds(row)) for row in benchmark.rows)
    return (
        f"The numbers rest on {finished} of {plural(planned, 'planned run')}. Intervals are at 95 % and not adjusted "
        f"for the number of rows. {power_statement(scores)}"
    )


def _titles(scores: Scores, rows: list[str]) -> str:
    return " and ".join(f"“{scores.benchmark.row(row).title}”" for row in rows)


def protocol(scores: Scores) -> list[tuple[str, str]]:
    """How the models were trained and tested."""
    benchmark = scores.benchmark
    training = benchmark.training
    counts = {name: tested_images(scores, name) or "not counted" for name in benchmark.targets}
    (height, width), (low, high) = training.crop, training.scale
    recipe = recipe_parts(training)
    pairs = [
        ("Id", benchmark.protocol.id),
        ("Test", protocol_text(scores)),
        ("Test images", ", ".join(f"{target_title(scores, name)} {count}" for name, count in counts.items())),
        (
            "Training",
            f"{training_text(scores)}; {training.iterations} iterations, batch {training.batch_size}, crop {height} × "
            f"{width} px, scale {low:g}–{high:g}, flip {'yes' if training.flip else 'no'}",
        ),
        (
            "Schedule",
            f"learning rate {training.learning_rate:g}, head ×{training.head_learning_rate_factor:g}, warm-up "
            f"{training.warmup}, power {training.power:g}, weight decay {training.weight_decay:g}, EMA "
            f"{training.ema:g}; {exceptions(benchmark)}",
        ),
        ("Recipe", "; ".join([optimiser_text(training), *recipe]) if recipe else ""),
        ("Trunk", f"{' / '.join(trunk_parts(benchmark.model))}; from {initial_weights(benchmark.model)}"),
        ("Seeds", ", ".join(map(str, benchmark.seeds))),
    ]
    return [(term, text) for term, text in pairs if text]


def provenance(scores: Scores) -> list[tuple[str, str]]:
    """Which code made the numbers, on which machine, in what time; and what is to be known of the data, if anything."""
    runs = scores.records.trainings()
    seconds = sum(float(run.info.get("train_seconds") or 0) for run in runs)
    notes = data_notes(scores)
    return [
        *([("Data", "; ".join(notes))] if notes else []),
        ("Commit", summarise_runs(runs, commit)),
        ("Code", code_text(scores)),
        ("Machine", summarise_runs(runs, machine)),
        ("Training time", f"{number(seconds / 60, 1)} min in {plural(len(runs), 'finished run')}"),
    ]


def works(scores: Scores) -> list[Work]:
    """What to cite: the suite, then the papers of the methods of these rows, each once, in the order of the rows."""
    benchmark = scores.benchmark
    papers = (paper_of(path) for row in benchmark.rows for path in benchmark.method_files(row))
    return [suite(), *cite_methods(papers)]


def citations(scores: Scores) -> str:
    """How to cite the suite and the methods of these rows, in one paragraph."""
    ours, *papers = (work.text for work in works(scores))
    text = f"If you use these results, please cite the suite ({ours})"
    return f"{text} and the papers of the methods shown: {'; '.join(papers)}." if papers else f"{text}."


def incidents(scores: Scores) -> list[tuple[str, str]]:
    """The runs that are not in the numbers, with the reason, and those that other code made: (row or digest, text)."""
    records = scores.records
    pairs = [(records.benchmark.row(row).title, note) for row, note in records.all_notes()]
    pairs = pairs or [("None", "every run was finished")]
    for digest, rows in other_code(scores).items():
        text = f"other code than today's made these, which are in the numbers: {', '.join(rows)}"
        pairs.append((f"† code {digest}", text))
    return pairs


def assumptions(scores: Scores) -> list[tuple[str, str]]:
    """Options that the papers leave open, one pair per method and option, with rows that deviate from the default."""
    found = find_assumed(scores)
    if not found:
        return [("None", "no finished run has an option that is marked as assumed")]
    several = len({each.method for each in found}) > 1
    return [
        (
            f"{each.method}: {each.name}" if several else each.name,
            each.text() + (f" – {each.explanation}" if each.explanation else ""),
        )
        for each in found
    ]
