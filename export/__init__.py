"""Exports a training run folder as a verified bundle of ONNX graphs."""
