"""Networks for other programs: NIR (both ways), ONNX, C."""
