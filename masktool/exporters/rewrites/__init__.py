"""Rewrites of what only ONNX Runtime knows, and of control flow, into the standard operators that have mask rules."""
