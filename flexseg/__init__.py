"""FLEX-Seg Bench: a reproducibility benchmark suite for domain-generalized semantic segmentation."""

__version__ = "0.1.0"
