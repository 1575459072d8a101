"""Model files: the ONNX format and the ModelSpec in its metadata."""
