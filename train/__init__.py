"""Trains lympho's three models and their ensemble on labelled patients."""
