"""onnxruntime: sessions, batches, the self-test, and the fallback if a device fails."""
