"""fusec: a code-generating compiler for fused CNN kernels."""

__version__ = "0.1.0"
