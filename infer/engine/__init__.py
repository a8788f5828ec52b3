"""onnxruntime: sessions, batches through the graphs, and what takes over where a device fails."""
