"""What pyproject.toml cannot say: a wheel holds the suite's benchmarks, methods, profiles and Snakefile too.

They lie at the top of the repository and are copied into the package as ``flexseg/suite/``, where ``flexseg.shipped``
finds them. An editable install copies nothing: there the checkout is the suite.
"""

from pathlib import Path
from shutil import copyfile

from setuptools import setup
from setuptools.command.build_py import build_py

SUITE = (
    "Snakefile",
    "CITATION.cff",
    "benchmarks/*.csv",
    "benchmarks/*.json",
    "benchmarks/*.yaml",
    "docs/captions/*.rst",
    "methods/*.md",
    "methods/*.py",
    "profiles/*/*.yaml",
)


class Build(build_py):
    """Also copies the suite."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for pattern in SUITE:
            for source in sorted(Path().glob(pattern)):
                target = Path(self.build_lib, "flexseg", "suite", source)
                target.parent.mkdir(parents=True, exist_ok=True)
                copyfile(source, target)


setup(cmdclass={"build_py": Build})
