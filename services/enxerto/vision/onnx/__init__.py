"""ONNX Runtime sessions and the comparison of an exported network with its source."""
