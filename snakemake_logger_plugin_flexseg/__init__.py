"""Snakemake finds logger plugins by the names of packages that begin like this one's: ``--logger flexseg``.

What it shows is :mod:`flexseg.cli.live`'s.
"""

from __future__ import annotations

from logging import LogRecord

from snakemake_interface_logger_plugins.base import LogHandlerBase

from flexseg.cli.live import View


class LogHandler(LogHandlerBase):
    """Hands Snakemake's records to the view."""

    def __post_init__(self) -> None:
        self.view = View(self.common_settings)

    def emit(self, record: LogRecord) -> None:
        """Show a record, or leave it to the log on disk."""
        self.view.take(record)

    def close(self) -> None:
        """Say how it ended and leave the terminal as it was."""
        self.view.close()
        super().close()

    @property
    def writes_to_stream(self) -> bool:
        """It writes to standard error, in the place of Snakemake's own words."""
        return True

    @property
    def writes_to_file(self) -> bool:
        """Snakemake keeps its complete log in ``.snakemake/log`` by itself."""
        return False

    @property
    def has_filter(self) -> bool:
        """The view chooses itself what it shows."""
        return True

    @property
    def has_formatter(self) -> bool:
        """And in which words."""
        return True

    @property
    def needs_rulegraph(self) -> bool:
        """No graph is drawn."""
        return False
