"""Experiments that are not part of the shipped model; no shipped code imports them."""
