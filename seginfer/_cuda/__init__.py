"""The pixel steps on an NVIDIA GPU, and the whole path from images to masks around a network that is there.

Without a GPU: `_records`, `_plans`, `_mask_plans`, `_taps` and `_layout` say what kernels are told and where things
lie, and `_compile` makes cubins. With one: `_launch` is the GPU, `_steps` are launches at fixed addresses, `_capture`
records them, `_frame` is all of it for one kind of batch, `_slots` says whose turn it is, and `_pipeline` is what
`Segmenter` uses.
"""
