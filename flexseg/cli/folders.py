"""Where the commands look, relative to the current folder, and the default benchmark."""

from pathlib import Path

BENCHMARKS, METHODS, RESULTS = Path("benchmarks"), Path("methods"), Path("results")
DEFAULT = "streetworld"
