"""Measurements of a model on this machine: what masks, gradients and explanations cost; see :mod:`.run`."""
