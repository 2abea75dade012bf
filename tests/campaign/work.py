"""A folder in which the smoke benchmark runs, the real commands in it, and digests of what they leave."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
from safetensors.numpy import load_file

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Work:
    """A folder with a benchmark, methods and Snakefile of the repository's."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> Work:
        """Set up the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("Snakefile", "benchmarks", "methods", "profiles", "docs"):
            if not (folder / name).exists():
                (folder / name).symlink_to(ROOT / name)
        return cls(folder)

    @property
    def results(self) -> Path:
        """The results of the smoke benchmark."""
        return self.folder / "results" / "smoke"

    def start(self, *words: str, **variables: str) -> subprocess.Popen[str]:
        """Start a command of the environment in the folder, as a process group of its own."""
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | variables
        environment["PATH"] = f"{BIN}{os.pathsep}{environment['PATH']}"
        return subprocess.Popen(
            words, cwd=self.folder, env=environment, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(self, *words: str) -> tuple[int, str]:
        """Run a command to its end: exit code and all output."""
        process = self.start(*words)
        out, error = process.communicate()
        return process.returncode, out + error

    def kill(self, seconds: float, *words: str) -> bool:
        """Start a command and kill all of its processes after some seconds; whether it was still running."""
        process = self.start(*words)
        time.sleep(seconds)
        running = process.poll() is None
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            running = False
        process.communicate()
        return running

    def digests(self) -> dict[str, str]:
        """What counts of the results: the tensors of weights, the contents of records, the tables without times."""
        found = {}
        for path in sorted(self.results.rglob("*")):
            name = str(path.relative_to(self.results))
            if path.name == "model.safetensors":
                total = hashlib.sha256()
                for key, value in sorted(load_file(path).items()):
                    total.update(key.encode() + value.tobytes())
                found[name] = total.hexdigest()
            elif path.suffix == ".parquet":
                found[name] = hashlib.sha256(str(pq.read_table(path).to_pydict()).encode()).hexdigest()
            elif (path.suffix == ".png" and "predictions" in path.parts) or (
                path.suffix in (".csv", ".md", ".tex") and not path.name.startswith(("cost", "metrics"))
            ):
                found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        return found

    def leftovers(self) -> list[str]:
        """Files that a writer began and did not finish."""
        return [str(path) for path in self.folder.rglob("*.part")]

    def copy(self, folder: Path) -> Work:
        """The same state in another folder."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return Work(folder)
