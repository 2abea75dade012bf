"""Plain training on source and generated images together: the baseline of the paper's tables.

DGInStyle (Jia et al., *Domain-Generalizable Semantic Segmentation with Image Diffusion Models and Stylized Semantic
Control*, ECCV 2024) makes the generated images; what is trained on them is not changed. The row stands for its use of
the data: cross entropy, images drawn uniformly from D_S ∪ D_G.
"""

from flexseg.method import Method


class DGInStyle(Method):
    name = "dginstyle"
    title = "Source and generated images"
    paper = "Jia et al., DGInStyle, ECCV 2024"
    data = ("source", "generated")
