"""The title page: what was measured, how, with what outcome, and what had to be assumed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from flexseg.analysis.figures.canvas import BOTTOM, LEFT, RIGHT, Page
from flexseg.analysis.figures.style import GREY, INK, text_width, wrap
from flexseg.analysis.report.pages import Book
from flexseg.analysis.stats.formats import number
from flexseg.analysis.stats.scores import Scores
from flexseg.analysis.stats.verdict import power_statement, verdict
from flexseg.analysis.tables.domains import protocol_text, tested_images, training_text
from flexseg.analysis.tables.origins import assumed, code_text, commit, exceptions, joined, machine, other_code
from flexseg.analysis.tables.recipes import initial_weights, optimiser_text, recipe_parts, trunk_parts
from flexseg.analysis.tables.write import target_title

SIZE, KEY, GUTTER = 8.5, 92.0, 24.0
QUESTION, FLOOR = 130.0, BOTTOM - 2
COLUMN = (RIGHT - LEFT - GUTTER) / 2


@dataclass(frozen=True)
class Entry:
    """A heading (``text`` empty), or a key with its text."""

    key: str
    text: str = ""


def draw_front(book: Book, scores: Scores, kind: str) -> None:
    """The title page and as many more as its facts need."""
    entries = [*_facts(scores), *_incidents(scores), *_assumed(scores)]
    with book.page() as page:
        benchmark = scores.benchmark
        page.text(LEFT, page.y + 18, benchmark.title, 24, bold=True)
        shift = text_width(benchmark.title, 24, bold=True) + 14
        page.text(LEFT + shift, page.y + 18, f"{kind} report", 17, colour=GREY)
        page.line(LEFT, RIGHT, page.y + 28, 1.0)
        page.y += 36
        page.paragraph("What was found (differences in mIoU points with 95 % interval)", 11, bold=True, gap=2)
        for question, answer in verdict(scores):
            below = page.paragraph(question, 9.5, width=QUESTION, y=page.y, colour=GREY)
            page.y = max(
                below, page.paragraph(answer, 9.5, x=LEFT + QUESTION + 10, width=RIGHT - LEFT - QUESTION - 10, y=page.y)
            )
        page.y += 5
        page.paragraph("What was measured", 11, bold=True, gap=2)
        page.paragraph(what(scores), 9.5, gap=4)
        entries = _fill(page, entries)
    while entries:
        with book.page("Protocol and assumptions, continued") as page:
            entries = _fill(page, entries)


def what(scores: Scores) -> str:
    """What the benchmark is, and of what its targets are analogues."""
    benchmark = scores.benchmark
    analogues = [
        f"{target_title(scores, target)} (of {benchmark.domains[target].analogue_of})"
        for target in benchmark.targets
        if benchmark.domains[target].analogue_of
    ]
    text = " ".join(benchmark.description.split())
    if analogues:
        text += (
            f" Analogues only, never the data sets themselves: {', '.join(analogues)}. What holds here is evidence "
            "about the mechanism under controlled conditions; it is no reproduction of a published number."
        )
    return text


def _fill(page: Page, entries: list[Entry]) -> list[Entry]:
    """Set entries in two columns from ``page.y`` down; the entries that found no room.

    The type shrinks by at most 1.5 points if that saves a page; what fits is set in columns of like length.
    """
    for size in (SIZE, SIZE - 0.5, SIZE - 1.0, SIZE - 1.5):
        for floor in np.arange(page.y + 40, FLOOR + 1, 6):
            if not _columns(page, entries, size, floor, draw=False):
                return _columns(page, entries, size, floor)
    return _columns(page, entries, SIZE, FLOOR)


def _columns(page: Page, entries: list[Entry], size: float, floor: float, draw: bool = True) -> list[Entry]:
    rest, leading = list(entries), size * 1.27
    for column in range(2):
        x, y = LEFT + column * (COLUMN + GUTTER), page.y
        while rest:
            entry = rest[0]
            lines = wrap(entry.text, COLUMN - KEY - 6, size) if entry.text else []
            keys = wrap(entry.key, KEY, size) if entry.text else [entry.key]
            need = max(len(lines), len(keys)) * leading + (0.8 if entry.text else 7)
            if y + need + (0 if entry.text else 2 * leading) > floor:
                break
            if draw and not entry.text:
                page.text(x, y + 6 + size, entry.key, size + 1.5, bold=True)
            elif draw:
                for index, line in enumerate(keys):
                    page.text(x, y + size + index * leading, line, size, colour=GREY)
                for index, line in enumerate(lines):
                    page.text(x + KEY + 6, y + size + index * leading, line, size, colour=INK)
            y += need
            rest.pop(0)
    return rest


def _facts(scores: Scores) -> Iterator[Entry]:
    benchmark, runs = scores.benchmark, scores.records.finished()
    protocol, training = benchmark.protocol, benchmark.training
    images = [
        f"{target_title(scores, target)} {tested_images(scores, target) or 'not counted'}"
        for target in benchmark.targets
    ]
    yield Entry("Protocol")
    yield Entry("Id", protocol.id)
    yield Entry("Test", protocol_text(scores))
    yield Entry("Test images", ", ".join(images))
    yield Entry("Training", f"{training_text(scores)}; "
                f"{training.iterations} iterations, batch {training.batch_size}, crop {training.crop[0]} × "
                f"{training.crop[1]} px, scale {training.scale[0]:g}–{training.scale[1]:g}, "
                f"flip {'yes' if training.flip else 'no'}")  # fmt: skip
    yield Entry("Schedule", f"learning rate {training.learning_rate:g}, head ×{training.head_learning_rate_factor:g}, "
                f"warm-up {training.warmup}, power {training.power:g}, weight decay {training.weight_decay:g}, EMA "
                f"{training.ema:g}; {exceptions(benchmark)}")  # fmt: skip
    recipe = recipe_parts(training)
    if recipe:
        yield Entry("Recipe", "; ".join([optimiser_text(training), *recipe]))
    yield Entry("Trunk", f"{' / '.join(trunk_parts(benchmark.model))}; from {initial_weights(benchmark.model)}")
    yield Entry("Seeds", ", ".join(map(str, benchmark.seeds)))
    yield Entry("Power", power_statement(scores))
    yield Entry("Where it comes from")
    yield Entry("Commit", joined(runs, commit))
    yield Entry("Code", code_text(scores))
    yield Entry("Machine", joined(runs, machine))
    seconds = sum(float(run.info.get("train_seconds") or 0) for run in runs)
    yield Entry("Training time", f"{number(seconds / 60, 1)} min in {len(runs)} finished runs")


def _incidents(scores: Scores) -> Iterator[Entry]:
    records = scores.records
    yield Entry("Runs that are not in the numbers")
    found = False
    for row in records.benchmark.rows:
        for note in records.notes(row):
            found = True
            yield Entry(row, note)
    if not found:
        yield Entry("None", "every run was finished")
    for digest, rows in other_code(scores).items():
        yield Entry(
            f"† code {digest}", f"other code than today's made these, which are in the numbers: {', '.join(rows)}"
        )


def _assumed(scores: Scores) -> Iterator[Entry]:
    """Options that the papers leave open, one entry a method and option, with rows that deviate from the default."""
    found = assumed(scores)
    yield Entry("Assumed: what the papers leave open")
    if not found:
        yield Entry("None", "no finished run has an option that is marked as assumed")
    several = len({each.method for each in found}) > 1
    for each in found:
        name = f"{each.method}: {each.name}" if several else each.name
        yield Entry(name, each.text() + (f" – {each.explanation}" if each.explanation else ""))
