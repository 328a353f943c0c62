"""Metrics of how well a map finds the object: one per file, each a plain function of a map (h, w) and annotations.

A figure that is undefined for an image, such as the energy of a map without a positive part, is None and never 0.
"""
