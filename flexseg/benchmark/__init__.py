"""A benchmark file: what is measured, read and checked before any work.

``benchmarks/<name>.yaml`` names the data, the targets, the protocol, the trunk, the schedule, the seeds and the rows.
Every wrong key or value is one :class:`~flexseg.errors.UserError` that names the file and the place in it. This room
imports no torch: the workflow reads benchmarks too, and must answer at once.
"""

from flexseg.benchmark.blocks import Domain, Part, Protocol, SetDomain, Size, World, WorldDomain
from flexseg.benchmark.identity import Run, fingerprint
from flexseg.benchmark.reading import benchmark_names, load_benchmark, select_rows
from flexseg.benchmark.schedule import Training
from flexseg.benchmark.schema import Benchmark, Row, Tuning

__all__ = [
    "Benchmark", "Domain", "Part", "Protocol", "Row", "Run", "SetDomain", "Size", "Training", "Tuning", "World",
    "WorldDomain", "benchmark_names", "fingerprint", "load_benchmark", "select_rows",
]  # fmt: skip
