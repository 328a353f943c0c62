"""Metrics of LIME alignment: LIME's weights against the object, and explanations against each other."""
