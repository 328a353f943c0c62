"""Gradients of any number of any ONNX graph with respect to any of its float inputs, as another ONNX graph.

No mask, no image and no class output is needed: the steps have files of their own, :mod:`.write` is the whole path.
"""
