"""A file that explains itself in MLflow: logged, loaded and asked as any other ONNX model.

python log_model.py MODEL IMAGES.npy
"""

import sys

import mlflow
import numpy as np
import onnx


def main(model: str, images: str) -> None:
    """Logs the model, and asks it for images as it takes them, (N, C, H, W); prints the model's address."""
    with mlflow.start_run():
        logged = mlflow.onnx.log_model(onnx.load(model), name="explained", pip_requirements=["onnxruntime", "onnx"])
    answer = mlflow.pyfunc.load_model(logged.model_uri).predict(np.load(images))
    scores, saliency_map = answer.values()
    print(f"classes {scores.argmax(axis=1).tolist()}, maps {saliency_map.shape}")
    print(logged.model_uri)


if __name__ == "__main__":
    main(*sys.argv[1:])
