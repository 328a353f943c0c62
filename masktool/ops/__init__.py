"""Mask rules: one file per family of ONNX operators.

:mod:`masktool.ops.registry` finds the rules, :mod:`masktool.ops.graph` is what they work on.
"""
