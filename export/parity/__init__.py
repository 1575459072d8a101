"""Comparison of exported pipelines with PyTorch's own."""
