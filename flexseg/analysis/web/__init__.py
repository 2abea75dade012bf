"""The benchmark as one page that opens from disk: sortable table, plots, pictures and every run behind a number."""

from flexseg.analysis.web.page import write_page

__all__ = ["write_page"]
