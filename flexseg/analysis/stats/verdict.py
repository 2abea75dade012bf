"""What the numbers show, in plain words, and no more than they show."""

from __future__ import annotations

from flexseg.analysis.stats.effects import ablation_lines, alignment_pairs, factorial_cells, factorial_effects
from flexseg.analysis.stats.formats import DASH, difference_text, number
from flexseg.analysis.stats.published import published_effects
from flexseg.analysis.stats.scores import Scores
from flexseg.analysis.stats.statistics import Difference, detectable, power, seeds_needed

HELP, COMPONENTS = "Does it help on unseen domains?", "Which component does it?"
CONTROLS, ALIGNMENT = "What do the controls say?", "Does misalignment matter?"
NOT_COMPARABLE = "not comparable, as no seed has finished both"
MANY = 6
"""More controls than this are sorted into one sentence instead of getting one each."""


def conclude(difference: Difference, better: str, worse: str) -> str:
    """``better`` or ``worse`` with the numbers if a difference was shown, else that none could be shown."""
    text = difference_text(difference)
    if not difference.n:
        return NOT_COMPARABLE
    if difference.n == 1:
        return f"{text} from a single seed, from which nothing can be concluded"
    if not difference.shown:
        return f"no difference could be shown, {text}"
    return f"{better if difference.value > 0 else worse}, {text}"


def verdict(scores: Scores) -> list[tuple[str, str]]:
    """(question, answer): does the full method help on unseen domains, what does it, and what do the controls say."""
    if not scores.records.finished():
        return [("Nothing yet", "No run of these rows was finished.")]
    full = [row for row in scores.benchmark.ablation.full if row in scores.benchmark.rows]
    answers = [
        (HELP, _help(scores, full)),
        (COMPONENTS, _components(scores, full)),
        (CONTROLS, _controls(scores, full)),
        (ALIGNMENT, _alignment(scores)),
    ]
    return [(question, " ".join(sentences)) for question, sentences in answers if sentences]


def _title(scores: Scores, row: str) -> str:
    return f"“{scores.benchmark.row(row).title}”"


def _help(scores: Scores, full: list[str]) -> list[str]:
    benchmark, main, sentences = scores.benchmark, scores.main, []
    for row in [row for row in full if row != benchmark.reference]:
        differences = scores.against(row, benchmark.reference)
        rest = [f"{name} {difference_text(differences[name])}" for name in benchmark.averages if name != main]
        text = f"{_title(scores, row)} against {_title(scores, benchmark.reference)} on {main}: "
        text += conclude(differences[main], "it scores higher", "it scores lower")
        sentences.append(text + (f" ({'; '.join(rest)})." if rest and differences[main].n else "."))
    if not full:
        sentences.append("No row with all components was selected, so this report cannot say.")
    return sentences


def _components(scores: Scores, full: list[str]) -> list[str]:
    sentences = []
    for row in full:
        section = f"Components of {scores.benchmark.row(row).title}"
        lines = [line for line in ablation_lines(scores.records) if line.section == section]
        lines = [line for line in lines if line.question.startswith("effect of ")]
        parts = [
            line.question.removeprefix("effect of ").split(":")[0]
            + f": {conclude(scores.contrasts(line.contrast)[scores.main], 'helps', 'harms')}"
            for line in lines
            if line.contrast
        ]
        if parts:
            sentences.append(f"In {_title(scores, row)}, with minus without it, on {scores.main}: {'; '.join(parts)}.")
        elif lines:
            sentences.append(f"{_title(scores, row)} was not taken apart.")
        effects = factorial_effects(list(scores.benchmark.ablation.components), factorial_cells(scores.records, row))
        if effects:
            texts = [
                f"{name} {difference_text(scores.contrasts(weights)[scores.main])}" for name, weights in effects.items()
            ]
            sentences.append(f"Averaged over the whole factorial: {'; '.join(texts)}.")
    return sentences


def _controls(scores: Scores, full: list[str]) -> list[str]:
    rows = [line.row for line in ablation_lines(scores.records) if line.section.startswith("Controls") and line.row]
    reference = scores.benchmark.reference
    against = {row: scores.against(row, reference)[scores.main] for row in rows}
    beyond = {row: scores.against(full[0], row)[scores.main] for row in rows} if full else {}
    if len(rows) > MANY:
        sentences = [_sort(scores, "Against the baseline", against, "higher", "lower")]
        if full:
            sentences.append(_sort(scores, f"{_title(scores, full[0])} against each", beyond, "higher", "lower"))
        return [*sentences, "Each at 95 %, not adjusted for the number of rows."]
    sentences = []
    for row in rows:
        text = f"{_title(scores, row)} against the baseline: {conclude(against[row], 'higher', 'lower')}"
        if full:
            text += f"; {_title(scores, full[0])} against it: {conclude(beyond[row], 'higher', 'lower')}"
        sentences.append(text + ".")
    return sentences


def _sort(scores: Scores, opening: str, differences: dict[str, Difference], better: str, worse: str) -> str:
    """Many differences in one sentence, by what was shown of each, the largest first."""
    groups: dict[str, list[str]] = {better: [], worse: [], "no difference shown": []}
    groups[NOT_COMPARABLE] = [_title(scores, row) for row, difference in differences.items() if not difference.n]
    compared = {row: difference for row, difference in differences.items() if difference.n}
    for row, difference in sorted(compared.items(), key=lambda each: -abs(each[1].value)):
        shown = difference.n > 1 and difference.shown
        group = "no difference shown" if not shown else better if difference.value > 0 else worse
        groups[group].append(_title(scores, row) + (f" {difference_text(difference)}" if shown else ""))
    return f"{opening}: " + "; ".join(f"{group}: {', '.join(rows)}" for group, rows in groups.items() if rows) + "."


def _alignment(scores: Scores) -> list[str]:
    pairs, main, none = alignment_pairs(scores.records), scores.main, scores.benchmark.ablation.none
    sentences = []
    for row, twin in pairs.items():
        own = scores.against(row, twin)[main]
        text = f"{_title(scores, row)} on misaligned instead of aligned data: {conclude(own, 'higher', 'lower')}"
        if row != none and none in pairs:
            both = scores.contrasts({row: 1.0, twin: -1.0, none: -1.0, pairs[none]: 1.0})[main]
            text += f"; this change against the baseline's: {conclude(both, 'it loses less', 'it loses more')}"
        sentences.append(text + ".")
    return sentences


def power_statement(scores: Scores, effect: float = 1.5, smaller: float = 1.0) -> str:
    """What the seeds that were run could see, from the spread that was observed."""
    if scores.own_variance:
        return _power_of_pairs(scores, effect, smaller)
    main, n = scores.main, len(scores.benchmark.seeds)
    noise = scores.noise(main)
    if noise is None:
        return "Unknown: it needs two rows with two common seeds."
    sd, rows = noise.paired_sd, noise.freedom // (n - 1) + 1
    needed = seeds_needed(smaller, sd, rows)
    published = published_effects(scores.records, main)
    parts = [
        f"{name} ({number(size, 1, sign=True)}) {number(100 * power(abs(size), sd, n, rows), 0)} %"
        for name, size in published.items()
    ]
    of_paper = f"For effects as large as published the power is: {', '.join(parts)}. " if parts else ""
    return (
        f"Sd of a paired difference on {main}: {number(sd, 2)} (residual of the table of {rows} rows × {n} seeds, "
        f"{noise.freedom} degrees of freedom). A two-sided test at 5 % with these {n} seeds sees {effect:g} mIoU with "
        f"power {number(100 * power(effect, sd, n, rows), 0)} % and has 80 % power for "
        f"{number(detectable(sd, n, rows), 2)} mIoU; {smaller:g} mIoU needs {needed or DASH} seeds at 80 %. "
        f"{of_paper}The variance of the test images comes on top."
    )


def _power_of_pairs(scores: Scores, effect: float, smaller: float) -> str:
    """The same from six seeds on, where every difference to the reference has a spread of its own."""
    benchmark, main = scores.benchmark, scores.main
    others = [row for row in benchmark.rows if row != benchmark.reference and not scores.is_fixed(row)]
    pairs = [pair for row in others if (pair := scores.paired(row, benchmark.reference, main)).n > 1]
    if not pairs:
        return "Unknown: it needs two rows with two common seeds."
    quiet, noisy = (pick(pairs, key=lambda pair: pair.sd) for pick in (min, max))
    powers = [f"{number(100 * noisy.power(size), 0)} % for {size:g} mIoU" for size in (effect, smaller)]
    return (
        f"Sd of a paired difference to {_title(scores, benchmark.reference)} on {main}: {number(quiet.sd, 2)} to "
        f"{number(noisy.sd, 2)}, each row's own. Power of a two-sided test at 5 %, with the noisiest row's {noisy.n} "
        f"seeds: {' and '.join(powers)}; that row has 80 % power for {number(noisy.detectable(), 2)} mIoU, and "
        f"{smaller:g} mIoU takes {noisy.seeds_needed(smaller) or DASH} seeds. The variance of the test images comes on "
        "top."
    )
