"""The model card: text and tables."""
