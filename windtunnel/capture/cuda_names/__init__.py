"""CUDA names, redirected at run time so that scripts written for ``cuda`` run on the card unchanged.

One patch set per session: ``CudaNames(session).install()`` and ``remove()``. What it is not: a CUDA
implementation. Nothing here computes; every name leads to the card's own module or to a listed placeholder.
"""

from windtunnel.capture.cuda_names.install import CudaNames

__all__ = ["CudaNames"]
