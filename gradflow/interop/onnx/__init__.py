"""Networks in ONNX graphs."""
