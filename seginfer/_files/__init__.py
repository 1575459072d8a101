"""Model files: ONNX metadata and the ModelSpec inside."""
