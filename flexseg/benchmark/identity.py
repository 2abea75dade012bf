"""A run's directory: what defines the run, what it left behind, and whether it may be continued or replaced."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flexseg.errors import UserError
from flexseg.files import digest, read_json, write_json

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""What a file system answers that knows no locks."""


def fingerprint(definition: dict[str, Any]) -> str:
    """The short name of a definition: 16 hex digits that change when anything in it does."""
    return digest(definition)[:16]


@dataclass(frozen=True)
class RunDirectory:
    """``results/<benchmark>/<row>/seed-<n>/`` and the files in it."""

    root: Path

    @property
    def config(self) -> Path:
        """What defines the run; written first, never changed."""
        return self.root / "config.json"

    @property
    def record(self) -> Path:
        """``run.json``: provenance, cost and resolved options of a finished run; written last."""
        return self.root / "run.json"

    @property
    def failure(self) -> Path:
        """``failure.json``: why the run cannot be finished."""
        return self.root / "failure.json"

    @property
    def log(self) -> Path:
        """``train.jsonl``: one line of JSON a logging step."""
        return self.root / "train.jsonl"

    @property
    def weights(self) -> Path:
        """The final (averaged) weights."""
        return self.root / "model.safetensors"

    @property
    def checkpoint(self) -> Path:
        """The state that an interrupted run continues from; removed when the run has finished."""
        return self.root / "checkpoint.safetensors"

    @property
    def observations(self) -> Path:
        """What the method shows of itself at a few moments of training, one file a moment."""
        return self.root / "observations"

    @property
    def evaluation(self) -> Path:
        """One parquet of per-image records a target."""
        return self.root / "evaluation"

    @property
    def predictions(self) -> Path:
        """A few predicted label maps a target."""
        return self.root / "predictions"

    @property
    def finished(self) -> bool:
        """Whether training came to its end."""
        return self.record.is_file() and self.weights.is_file()

    @property
    def lock(self) -> Path:
        """Held by the process that trains the run. It lies beside the directory, which may be moved aside."""
        return self.root.parent / f".{self.root.name}.lock"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep every other process from training this run within the block.

        The lock is the system's: it goes with the process that holds it, however that ends, and holds between the
        machines of a cluster as far as their file system's locks do; where there are none it says so and goes on.
        Processes that a run starts for further devices are kept out of nothing.

        Raises:
            UserError: another process trains this run; says which.
        """
        if os.environ.get("LOCAL_RANK", "0") != "0":
            yield
            return
        self.lock.parent.mkdir(parents=True, exist_ok=True)
        with self.lock.open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                raise UserError(
                    f"{self.root} is being trained by {file.read().strip() or 'another process'}: wait until it is "
                    "done, or end it; then start the same command again, which goes on from its checkpoint"
                ) from error
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    raise
                print(f"{self.lock.parent} knows no file locks: make sure that no other process trains {self.root}")
            file.truncate(0)
            job = os.environ.get("SLURM_JOB_ID")
            file.write(f"process {os.getpid()} on {socket.gethostname()}" + (f" (Slurm job {job})" if job else ""))
            file.flush()
            yield

    def open(self, definition: Mapping[str, Any], *, supersede: bool = False) -> None:
        """Make this the directory of the run that ``definition`` defines.

        A directory of another definition is never overwritten: it is an error, or, with ``supersede``, is moved aside
        to ``superseded/`` beside it. A recorded failure of the same run is cleared, so that it is tried again.

        Raises:
            UserError: the directory belongs to another definition and ``supersede`` is false.
        """
        name = fingerprint(dict(definition))
        if self.config.is_file():
            found = read_json(self.config)
            if found["fingerprint"] != name:
                if not supersede:
                    difference = _difference(found["definition"], definition)
                    raise UserError(
                        f"{self.root} holds a run of another configuration: {difference}. Nothing was changed. "
                        "Give --supersede to move it aside, or name another row"
                    )
                self._move_aside(found["fingerprint"])
        self.root.mkdir(parents=True, exist_ok=True)
        self.failure.unlink(missing_ok=True)
        write_json(self.config, {"fingerprint": name, "definition": dict(definition)})

    def _move_aside(self, name: str) -> None:
        shelf = self.root.parent / "superseded"
        shelf.mkdir(exist_ok=True)
        place, number = shelf / f"{self.root.name}-{name}", 1
        while place.exists():
            number += 1
            place = shelf / f"{self.root.name}-{name}-{number}"
        self.root.rename(place)


def _difference(old: Any, new: Any, path: str = "") -> str:
    """The first few places where two definitions differ, in words."""
    found = list(_differences(old, new, path))
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return "; ".join(found[:3]) + more


def _differences(old: Any, new: Any, path: str) -> list[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        found = []
        for key in sorted(old.keys() | new.keys()):
            found += _differences(old.get(key), new.get(key), f"{path}.{key}" if path else str(key))
        return found
    if isinstance(old, list | tuple) and isinstance(new, list | tuple) and list(old) == list(new):
        return []
    return [] if old == new else [f"{path} was {old!r}, now {new!r}"]
