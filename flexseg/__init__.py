"""FLEX-Seg Bench: a reproducibility benchmark suite for domain-generalized semantic segmentation."""

__version__ = "2026.11.0"
"""Year, month and patch of the release; CONTRIBUTING.md says what it promises."""
