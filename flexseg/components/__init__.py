"""What methods are made of, one idea a file: functions and small modules that stand beside the equations.

The components of FLEX-Seg (Kim et al., AAAI 2026, arXiv 2511.22948):

========================  ==============================================================
``boundary``              which pixels lie on a class boundary, and how close to it
``gap``                   Granular Adaptive Prototypes: L_GAP and its prototype bank
``ube``                   Uncertainty Boundary Emphasis: L_UBE and the fixed policies
``has``                   Hardness-Aware Sampling: which image is drawn next (numpy only)
========================  ==============================================================

and of the baselines, each with its paper in its docstring:

========================  ==============================================================
``norms``                 stages and norms of a backbone, covariances, Newton's whitening
``san``, ``saw``          semantic-aware normalisation and whitening
``style``                 channel statistics as style; maps changed behind a stage
``consistency``           divergences between two views
``contrast``              InfoNCE between pixels
``recent``                a queue of the latest vectors, the same on all ranks
``rcs``, ``fd``           rare class sampling; distance to a frozen encoder's features
``low_rank``              a linear layer with a trained addition of low rank
``tokens``                trained tokens that change a frozen transformer's features
``losses``                the plain cross entropy in its parts
``ranks``                 the one sum over processes that batch statistics need
========================  ==============================================================

Import from the modules: this package imports nothing by itself, so that ``has`` stays free of torch.
Whatever the public text leaves open is marked **assumed** where it is decided.
"""
