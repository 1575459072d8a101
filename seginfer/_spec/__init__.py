"""The contract that travels inside a model file."""
