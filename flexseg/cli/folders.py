"""Where the commands look, relative to the current folder, and the default benchmark."""

from pathlib import Path

BENCHMARKS, METHODS, RESULTS, DATASETS = Path("benchmarks"), Path("methods"), Path("results"), Path("datasets")
DEFAULT = "streetworld"
