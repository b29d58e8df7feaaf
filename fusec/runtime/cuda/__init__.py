"""CUDA: building cubins, and running them on GPUs. Only these modules import CuPy, and only when one is called."""
