"""A file that explains itself in Apache Beam: its stock handler of ONNX models runs it, as any other model.

python explain_with_beam.py MODEL 'IMAGES/*.npy' OUT
"""

import sys
from collections.abc import Sequence

import apache_beam as beam
import numpy as np
import onnxruntime
from apache_beam.io import fileio
from apache_beam.ml.inference.base import PredictionResult, RunInference
from apache_beam.ml.inference.onnx_inference import OnnxModelHandlerNumpy


def run_all(session: onnxruntime.InferenceSession, images: Sequence[np.ndarray], _: object = None) -> dict:
    """Returns every output by name: what the handler does by default returns the first one alone."""
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {session.get_inputs()[0].name: np.stack(images)}), strict=True))


def describe(result: PredictionResult) -> str:
    """Returns a line on one image: its class, and where the map is highest."""
    scores, saliency_map = result.inference.values()
    row, column = np.unravel_index(saliency_map[0].argmax(), saliency_map[0].shape)
    return f"class {scores.argmax()}, most of it at row {row}, column {column}"


def main(model: str, images: str, out: str) -> None:
    """Reads arrays as the model takes them, (C, H, W), and writes a line for each."""
    handler = OnnxModelHandlerNumpy(model, providers=["CPUExecutionProvider"], inference_fn=run_all)
    with beam.Pipeline(argv=[]) as pipeline:
        arrays = pipeline | fileio.MatchFiles(images) | beam.Map(lambda match: np.load(match.path))
        arrays | RunInference(handler) | beam.Map(describe) | beam.io.WriteToText(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
