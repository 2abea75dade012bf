"""The PDFs and the summary."""
