"""The scan over time as Numba kernels."""
