"""Networks written out in plain PyTorch, for the examples and the tests."""
