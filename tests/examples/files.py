"""Files that explain themselves, for the examples to run, and what Python says of the same photograph."""

import dataclasses
import functools
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime
from networks.small_graphs import parse

import masktool
from masktool.contract import Preprocessing
from masktool.demo import sample_path
from masktool.embedding.options import build_embedded_method
from masktool.explainers.explaining import explain_all
from masktool.explainers.explanation_settings import ExplanationSettings
from masktool.explainers.method import METHODS
from masktool.runtime import read_image
from masktool.runtime.preprocessing import prepare

EXAMPLES = Path(__file__).parents[2] / "examples"
PHOTOGRAPH = sample_path()
LABELS = ("cat", "dog", "bird", "fish")
SIZE = (24, 20)
PREPROCESSING = Preprocessing(SIZE, resize_to=26, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
NETWORK = f"""
<ir_version: 10, opset_import: ["" : 18]>
classifier (float[N, 3, {SIZE[0]}, {SIZE[1]}] image) => (float[N, 4] logits)
<float[6, 3, 3, 3] kernel, float[6, 4] weight>
{{
    features = Conv<pads = [1, 1, 1, 1]>(image, kernel)
    active = Relu(features)
    pooled = GlobalAveragePool(active)
    flat = Flatten(pooled)
    logits = Gemm(flat, weight)
}}
"""
HEAD = 0.3
"""Factor of the last weights: so far from certain, the network's scores answer to what is hidden."""
SAMPLES = 6
SHARE = 1e-4
"""Of the range of Python's map: the largest difference to a map of another runtime."""
OF_EXPORT = {"output_kind": "logits", "preprocessing": PREPROCESSING, "labels": list(LABELS)}
"""Options of every export."""


@dataclasses.dataclass(frozen=True)
class Expected:
    """What Python says of the photograph: the class and its probability, the file's map, and the explainer's."""

    label: str
    probability: float
    by_file: np.ndarray
    by_explainer: np.ndarray

    def assert_same(self, label, probability, saliency_map):
        """Holds another runtime's results to these."""
        assert label == self.label
        assert abs(probability - self.probability) <= SHARE
        for own in (self.by_file, self.by_explainer):
            found = np.asarray(saliency_map, np.float32).reshape(own.shape)
            assert np.abs(found - own).max() <= SHARE * np.ptp(own), f"{np.abs(found - own).max() / np.ptp(own):.1e}"


def network():
    """Returns the small network that is explained."""
    return parse(NETWORK, weight=HEAD * np.random.default_rng(1).standard_normal((6, 4)))


class ExplainedFiles:
    """Exports the small network with each method once.

    Args:
        folder: the folder to write into.
    """

    def __init__(self, folder):
        self.folder = folder
        self.image = prepare(read_image(PHOTOGRAPH), PREPROCESSING).array

    @functools.cache  # noqa: B019 - one object, which lives as long as the tests
    def path(self, method, **options):
        """Returns the path of a file with a method."""
        path = self.folder / ("_".join([method, *map(str, options.values())]) + ".onnx")
        samples = SAMPLES if METHODS[method].samples_option else None
        masktool.export_explained(network(), path, method, n_samples=samples, **OF_EXPORT, **options)
        return path

    @functools.cache  # noqa: B019
    def masked(self):
        """Returns the path of a file with a mask and gradients, for the explainers in Python."""
        masktool.export(network(), self.folder / "masked.file", gradient="logit", **OF_EXPORT)
        return self.folder / "masked.file"

    @functools.cache  # noqa: B019
    def expected(self, method):
        """Returns what Python says of the photograph."""
        session = onnxruntime.InferenceSession(self.path(method), providers=["CPUExecutionProvider"])
        logits, saliency_map = session.run(["logits", "saliency_map"], {"image": self.image})
        samples = SAMPLES if METHODS[method].samples_option else None
        with masktool.load(self.masked(), "cpu") as reference:
            settings = ExplanationSettings(perturbations_per_eval=1)
            built = build_embedded_method(method, {}, samples)
            ((found,),) = explain_all(reference, [self.image[0]], [[None]], built, settings)
        probabilities = np.exp(logits[0] - logits.max()) / np.exp(logits[0] - logits.max()).sum()
        top = int(probabilities.argmax())
        return Expected(LABELS[top], float(probabilities[top]), saliency_map[0, 0], found.model_attributions)


def run_node(script, *arguments, folder):
    """Runs Node on a script and returns what it prints; a failure shows what it said."""
    done = subprocess.run(
        [shutil.which("node"), str(script), *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
