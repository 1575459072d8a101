"""CUDA runtime: memory, kernels and graphs on an NVIDIA GPU.

`kernel_args`, `packing` and `compiler` need no GPU. `gpu` loads the kernels and owns memory. `steps` launches kernels
at fixed addresses, and `graph` records them.
"""
