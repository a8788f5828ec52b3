"""The model on disk: its manifest and checksums. Runs no network."""
