"""What runs on ONNX Runtime's WebGPU provider, in the environment of scripts/webgpu_environment.sh."""
