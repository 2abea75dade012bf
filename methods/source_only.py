"""Plain training on the source alone: the row from which every gain is counted."""

from flexseg.method import Method


class SourceOnly(Method):
    name = "source_only"
    title = "Source only"
    data = ("source",)
