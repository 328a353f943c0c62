"""Mask rules: one file per family of ONNX operators.

:mod:`masktool.ops.graph` and :mod:`masktool.ops.gradients` are what the rules work on, and hold the tables of them.
"""
