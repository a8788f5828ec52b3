"""Turns a training's run folder into one checked bundle of ONNX graphs."""
