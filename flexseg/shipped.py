"""Where the suite's own benchmarks, methods, profiles and Snakefile are: in its checkout, or in the package."""

from __future__ import annotations

from pathlib import Path

LIBRARY = Path(__file__).parent


def home() -> Path:
    """The folder that holds ``Snakefile``, ``benchmarks/``, ``methods/`` and ``profiles/``.

    The wheel has them in ``flexseg/suite/`` (``setup.py``).
    """
    checkout = LIBRARY.parent
    return checkout if (checkout / "Snakefile").is_file() else LIBRARY / "suite"


def snakefile() -> str:
    """The path of the workflow, for ``include:`` and ``module:`` in other workflows."""
    return str(home() / "Snakefile")


def benchmarks_folder() -> Path:
    """``benchmarks/`` of the current folder, if it has one, else the suite's; ``methods/`` lie beside it."""
    own = Path("benchmarks")  # in other workflows a folder of that name holds measurements of speed
    return own if any(own.glob("*.yaml")) else home() / "benchmarks"
