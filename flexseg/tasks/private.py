"""What nobody else need know of the machine on which something was made: it is left out of what is published."""

from __future__ import annotations

import getpass
import re
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flexseg.benchmark.identity import differences
from flexseg.errors import UserError

LEFT_OUT = "(left out)"
"""What stands in a record in place of something that is the machine's owner's alone."""
ABSOLUTE = re.compile(r"(?<![\w:/.])(?:~|[A-Za-z]:\\|\\\\|/)[\w.+@-]+(?:[/\\][\w.+@-]*)+")
"""An absolute path of at least two parts, inside a text."""


class Private:
    """What nobody else need know: where on the machine something was, the machine's name, and its user's."""

    def __init__(self) -> None:
        here, home = Path.cwd(), Path.home()
        self._here = [str(path) for path in dict.fromkeys((here, here.resolve())) if path != Path("/")]
        self._home = [str(path) for path in dict.fromkeys((home, home.resolve())) if path != Path("/")]
        self._names = {socket.gethostname(), _user()} - {""}

    def tidy_record(self, record: Any, path: Path) -> Any:
        """``run.json`` or ``config.json`` without absolute paths: relative to the working folder, or left out.

        Raises:
            UserError: the definition of the run names one, and cannot be changed.
        """
        definition = record.get("definition")
        if definition is not None and (found := self._tidy(definition, names=False)) != definition:
            place, value, _ = differences(definition, found)[0]
            raise UserError(
                f"{path}: the run is defined with something of this machine's, {place} = {value!r}, which would be "
                "published with it. Name it relative to this folder or to $FLEXSEG_WEIGHTS, and train again"
            )
        return {key: value if key == "definition" else self._tidy(value) for key, value in record.items()}

    def _tidy(self, value: Any, names: bool = True) -> Any:
        """``names``: the machine's and the user's too; a definition may well have a word in common with them."""
        if isinstance(value, Mapping):
            return {key: self._tidy(each, names) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return [self._tidy(each, names) for each in value]
        if not isinstance(value, str):
            return value
        for place in self._here:
            shorter = re.sub(rf"{re.escape(place)}(?:/|(?![\w.-]))", "", value)
            value = shorter if shorter or not value else "."
        if names and value in self._names:
            return LEFT_OUT
        for place in self._home:
            value = re.sub(rf"{re.escape(place)}(?![\w.-])[\w./+@-]*", LEFT_OUT, value)
        return ABSOLUTE.sub(LEFT_OUT, value)

    def check(self, folder: Path, names: Sequence[str]) -> None:
        """Look through every text that is published for the working folder and the home.

        Raises:
            UserError: names file and line.
        """
        for name in names:
            if name.endswith((".safetensors", ".parquet")):
                continue
            text = (folder / name).read_text(encoding="utf-8", errors="replace")
            for number, line in enumerate(text.splitlines(), 1):
                for place in (*self._here, *self._home):
                    if re.search(rf"{re.escape(place)}(?![\w.-])", line):
                        raise UserError(
                            f"{name}, line {number}, would be published with {place}, a place on this machine: take it "
                            "out of the original (a comment or docstring of a method does not change its runs)"
                        )


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return ""
