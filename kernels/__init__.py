"""Numba kernels: arrays and scalars in, arrays out. They import nothing else of fastseg."""
