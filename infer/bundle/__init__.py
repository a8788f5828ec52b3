"""The model on disk: its manifest, its checksums. Starts no network."""
