"""Plain training on the source alone: the row that every gain is counted from."""

from flexseg.method import Method


class SourceOnly(Method):
    name = "source_only"
    title = "Source only"
    data = ("source",)
