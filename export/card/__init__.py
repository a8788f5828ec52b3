"""The model card: text and figures."""
