"""What a benchmark file says of its ablation: components, controls, and dials, which are plots against one setting."""

from __future__ import annotations

from pydantic import Field, model_validator

from flexseg.benchmark.blocks import Strict


class Dial(Strict):
    """A plot of mIoU against one setting. Its name is that of the study which runs its rows.

    ``x`` are the values, numbers or names, and ``axis`` is the label under them (default: the title); ``series`` lists
    a row for each value under each series' label, or null where a series has none. A row may stand in several places.
    """

    title: str
    axis: str = ""
    x: list[float | str] = Field(min_length=2)
    series: dict[str, list[str | None]] = Field(min_length=1)

    @model_validator(mode="after")
    def _as_long_as_x(self) -> Dial:
        for label, rows in self.series.items():
            if len(rows) != len(self.x):
                raise ValueError(
                    f"series.{label}: {len(rows)} rows for {len(self.x)} values of x: one row a value, or null"
                )
        if len(set(self.x)) != len(self.x):
            raise ValueError("x: a value is named twice")
        return self

    @property
    def rows(self) -> list[str]:
        """Every row that is named here."""
        return list(dict.fromkeys(row for rows in self.series.values() for row in rows if row))


class Ablation(Strict):
    """What the ablation report takes apart.

    ``components`` names each component's switch among the options; ``full`` are the rows whose switches are taken one
    at a time (and together: the factorial is found among the rows whose other options agree); ``none`` is the row
    without any; ``aligned`` pairs a row with its twin on aligned generated data; ``panels`` are the two rows whose
    predictions stand side by side; ``dials`` are plots of mIoU against one setting, by the name of the study that runs
    their rows (:class:`Dial`).
    """

    components: dict[str, str]
    full: list[str] = Field(min_length=1)
    none: str
    aligned: dict[str, str] = Field(default_factory=dict)
    panels: tuple[str, str]
    dials: dict[str, Dial] = Field(default_factory=dict)

    @property
    def rows(self) -> list[str]:
        """Every row that is named here."""
        dials = [row for dial in self.dials.values() for row in dial.rows]
        return [*self.full, self.none, *self.aligned, *self.aligned.values(), *self.panels, *dials]
