"""Random networks: one program, run by torch under the independent mask rules and written as ONNX in many dialects."""
