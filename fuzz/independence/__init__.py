"""Random graphs that rearrange, reduce and join, on which the proof of batch independence is held to ONNX Runtime."""
