"""The ablation block of a benchmark file: components, controls, and dials (plots against one setting)."""

from __future__ import annotations

from pydantic import Field, model_validator

from flexseg.benchmark.values import Name, Strict, Text


class Dial(Strict):
    """A plot of mIoU against one setting. It has the name of the study that runs its rows.

    ``x`` are the values, numbers or names, and ``axis`` is the label under them (default: the title); ``series`` lists
    a row for each value under each series' label, or null for none. A row may be listed several times.
    """

    title: Text
    axis: Text = ""
    x: list[float | Text] = Field(min_length=2)
    series: dict[Text, list[str | None]] = Field(min_length=1)

    @model_validator(mode="after")
    def _as_long_as_x(self) -> Dial:
        for label, rows in self.series.items():
            if len(rows) != len(self.x):
                raise ValueError(f"series.{label}: {len(rows)} rows for {len(self.x)} values of x: one each, or null")
        if len(set(self.x)) != len(self.x):
            raise ValueError("x: a value is named twice")
        return self

    @property
    def rows(self) -> list[str]:
        """Every row named here."""
        return list(dict.fromkeys(row for rows in self.series.values() for row in rows if row))


class Ablation(Strict):
    """What the ablation report compares.

    ``components`` names the option that switches each component; ``full`` are the rows whose components are switched
    off one at a time (and together: the factorial is found among the rows whose other options agree); ``none`` is the
    row without any; ``aligned`` pairs a row with its twin on aligned generated data; ``panels`` are the two rows whose
    predictions are shown side by side; ``dials`` are plots of mIoU against one setting (:class:`Dial`).
    """

    components: dict[Text, str]
    full: list[str] = Field(min_length=1)
    none: str
    aligned: dict[str, str] = Field(default_factory=dict)
    panels: tuple[str, str]
    dials: dict[Name, Dial] = Field(default_factory=dict)

    @property
    def rows(self) -> list[str]:
        """Every row named here."""
        dials = [row for dial in self.dials.values() for row in dial.rows]
        return [*self.full, self.none, *self.aligned, *self.aligned.values(), *self.panels, *dials]
