"""What pyproject.toml cannot say: the wheel holds the suite's benchmarks, methods, profiles and Snakefile too.

They lie at the top of the repository and go into the package as ``flexseg/suite/`` (``package-data`` in pyproject.toml
lists them), where ``flexseg.shipped`` finds them.
"""

from typing import Any

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py


class Build(build_py):
    """Takes only the data of ``flexseg.suite``: its folder is the repository's own, and this file is no part of it."""

    def find_package_modules(self, package: str, package_dir: str) -> list[Any]:
        return [] if package == "flexseg.suite" else super().find_package_modules(package, package_dir)


setup(
    cmdclass={"build_py": Build},
    packages=[*find_packages(include=["flexseg*", "snakemake_logger_plugin_flexseg"]), "flexseg.suite"],
    package_dir={"flexseg.suite": "."},
)
