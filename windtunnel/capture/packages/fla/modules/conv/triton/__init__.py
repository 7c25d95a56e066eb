"""Where the real package keeps its Triton kernels."""
