"""Evaluation of the models: the report's protocol and the nested protocol."""
