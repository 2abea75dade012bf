"""The components of FLEX-Seg (Kim et al., AAAI 2026, arXiv 2511.22948), one idea a file.

========================  ==============================================================
``boundary``              which pixels lie on a class boundary, and how close to it
``gap``                   Granular Adaptive Prototypes: L_GAP and its prototype bank
``ube``                   Uncertainty Boundary Emphasis: L_UBE and the fixed policies
``has``                   Hardness-Aware Sampling: which image is drawn next (numpy only)
``ranks``                 the one sum over processes that batch statistics need
========================  ==============================================================

Import from the modules: this package imports nothing by itself, so that ``has`` stays free of torch.
Whatever the public text leaves open is marked **assumed** where it is decided.
"""
