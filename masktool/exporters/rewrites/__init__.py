"""Rewrites operators that only ONNX Runtime knows, and control flow, into the standard ones that have mask rules."""
