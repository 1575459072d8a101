"""Reference networks in plain PyTorch."""
