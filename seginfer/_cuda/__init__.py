"""The pixel steps on an NVIDIA GPU: the functors of cpp_bindings/ through NVRTC and cuda-core.

`_records` and the plans say what the kernels are told, and need no GPU; `_compile` makes cubins, with none
either; `_launch` runs them.
"""
