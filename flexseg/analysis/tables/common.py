"""What all tables share: marked notes, headings, and the explanation of their intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict

from flexseg.analysis.stats.domains import target_title
from flexseg.analysis.stats.formats import SUPERSCRIPTS, Table
from flexseg.analysis.stats.scores import Scores
from flexseg.analysis.stats.statistics import Difference, Mean

TableFiles = tuple[Callable[[Scores], Table], list[str], Callable[[Scores], Iterable[Mapping[str, object]]]]
"""How a table is made for people, and its CSV: columns and records."""
POOLED = (
    "A cell is the mean over seeds ± the half width of its 95 % t-interval over seeds. A difference is paired (same "
    "seeds, same test images); its 95 % interval is over seeds and test images: the residual variance of all rows × "
    "seeds (assumed equal for the rows) and the resampled image variance that the seeds share, joined by a "
    "weighted quantile (after Cochran and Cox)."
)
OWN = (
    "A cell is the mean over seeds ± the half width of its 95 % t-interval over seeds. A difference is paired (same "
    "seeds, same test images); its 95 % interval is over seeds and test images: its own variance over seeds (below six "
    "common seeds the residual variance of all rows × seeds) and the resampled image variance that the seeds share (t, "
    "with Satterthwaite's degrees of freedom)."
)


def how(scores: Scores) -> str:
    """How cells and intervals are made, by the number of seeds that were planned."""
    return OWN if scores.own_variance else POOLED


def intervals(scores: Scores) -> str:
    """:func:`how`, and what is bold."""
    return f"{how(scores)} Bold: the interval excludes zero, for a single target after Holm over the targets."


class Notes:
    """Notes below a table, numbered as they are first used."""

    def __init__(self, scores: Scores) -> None:
        self.records = scores.records
        self._numbers: dict[str, int] = {}
        self._digests: set[str] = set()

    def title(self, row: str, title: str = "") -> str:
        """The row's title with the marks of its notes."""
        numbers = [self._numbers.setdefault(note, len(self._numbers) + 1) for note in self.records.notes(row)]
        digests = self.records.other_code(row)
        self._digests.update(digests)
        mark = ",".join(map(str, numbers)).translate(SUPERSCRIPTS)
        return (title or self.records.benchmark.row(row).title) + mark + ("†" if digests else "")

    def lines(self) -> list[tuple[str, str]]:
        """(mark, note) of all that were used."""
        lines = [(str(index).translate(SUPERSCRIPTS), note) for note, index in self._numbers.items()]
        if self._digests:
            made = ", ".join(sorted(self._digests))
            lines.append(("†", f"made by other code than today's (digest {made})"))
        return lines


def averages_text(scores: Scores) -> str:
    """What each average is the mean of, as a sentence."""
    parts = [
        f"{name} is the mean of {', '.join(target_title(scores, member) for member in members)}"
        for name, members in scores.benchmark.averages.items()
    ]
    return f"{'; '.join(parts)}." if parts else ""


def mean_record(mean: Mean) -> dict[str, object]:
    """The CSV columns of a mean."""
    return {"value": mean.value, "low": mean.low, "high": mean.high, "n": mean.n}


def difference_record(difference: Difference) -> dict[str, object]:
    """The CSV columns of a difference."""
    return asdict(difference)
