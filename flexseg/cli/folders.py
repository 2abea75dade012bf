"""Where the commands look, and the default benchmark.

Results go below the current folder. Benchmarks and methods are taken from there too, if it has a folder of benchmarks
(a checkout, or what ``flexseg init`` wrote), and otherwise those that the suite brings.
"""

from pathlib import Path

from flexseg.shipped import benchmarks_folder

BENCHMARKS = benchmarks_folder()
METHODS = BENCHMARKS.parent / "methods"
RESULTS = Path("results")
DATASETS = Path("datasets")
DEFAULT = "streetworld"
