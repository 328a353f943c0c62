"""Every family of networks on WebGPU: the CPU's numbers, nothing of what is missing, and nodes that stay there.

The provider is real; the driver may be one in software, which computes as the specification says and no faster.
"""

import time

import numpy as np
import pytest

import masktool
from webgpu.conftest import FORMS
from webgpu.networks import NETWORKS, REAL
from webgpu.profiles import left_device, profiled

pytestmark = pytest.mark.webgpu
TOLERANCE = 1e-4
"""Of an output's largest value; the sums are taken in another order, in single precision."""
ON_CPU = {"Transpose": "of conditions on maps, which have no kernel to transpose them in 1.27"}
"""Operators that compute masks or activations on the CPU all the same, with the reason; a shorter list is better."""
HIDDEN = np.array([np.nan, np.inf, -np.inf, 1e30], np.float32)
"""What stands under the mask."""
LEFT = {}
"""What left the device, by network and form."""


def make_pairs(path, pairs=2):
    """Returns images, a mask for each, and the images with no numbers where their mask is 0."""
    rng = np.random.default_rng(0)
    with masktool.load(path, providers="cpu") as session:
        height, width = session.spatial_shape
    images = rng.normal(size=(pairs, 3, height, width)).astype(np.float32)
    masks = np.ones((pairs, 1, height, width), np.float32)
    masks[0, :, height // 3 : 2 * height // 3, width // 4 : width // 2] = 0
    masks[1:, :, : height // 2] = 0
    return images, masks, np.where(masks == 0, rng.choice(HIDDEN, images.shape), images)


def run_all(session, images, masks):
    """Returns every output of a file by name, gradients too."""
    found = session.run(images, masks)
    if session.has_gradient:
        given = session.gradient(images, masks, target=1, of=("image", "mask", "feature_map"))
        names = ("objective", "image", "mask", "feature_map", "gradient_feature_map")
        found |= {f"gradient: {name}": getattr(given, name) for name in names}
    return found


def largest_difference(found, expected):
    """Returns the largest difference of any output, as a share of that output's largest value."""
    assert found.keys() == expected.keys()
    assert all(values.any() for values in expected.values())
    return max(float(np.abs(found[name] - own).max() / np.abs(own).max()) for name, own in expected.items())


def describe(counts):
    """Returns operators with their numbers in a line."""
    return ", ".join(f"{number} {operator}" for operator, number in sorted(counts.items())) or "none"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", NETWORKS)
def test_the_numbers_are_the_cpus_and_nothing_missing_counts(name, form, files, tmp_path, measured):
    path = files.path(name, form)
    images, masks, hidden = make_pairs(path, 1 if name in REAL else 2)
    with masktool.load(path, providers="cpu") as session:
        expected = run_all(session, images, masks)
    started = time.perf_counter()
    with profiled(path, tmp_path) as (session, ran):
        found = run_all(session, images, masks)
        seconds = time.perf_counter() - started
        again = run_all(session, hidden, masks)
    difference = largest_difference(found, expected)
    LEFT[name, form], lengths = left_device(ran)
    on_cpu = f"on the CPU: {describe(LEFT[name, form])}; lengths: {describe(lengths)}"
    measured.append(f"{name}, {form}: {difference:.1e}, {seconds:.1f} s; of {len(ran)} nodes {on_cpu}")
    assert difference <= TOLERANCE
    for output, values in found.items():
        assert np.array_equal(values, again[output]), output
    assert set(LEFT[name, form]) <= set(ON_CPU)


@pytest.mark.parametrize("form", ["layer", "fill"])
@pytest.mark.parametrize("name", ["concatenation", "resize"])
def test_one_mask_reaches_every_node(name, form, files):
    """A mask of the default's own length could stay without influence on part of the nodes and raise no error."""
    path = files.path(name, form)
    images, masks, _ = make_pairs(path)
    with masktool.load(path, providers="cpu") as here, masktool.load(path, providers="webgpu") as there:
        for each in ((images[:1], masks[:1]), (images[:1], masks), (images[:1],)):
            expected, found = here(*each), there(*each)
            assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()


def test_nothing_is_listed_that_stays_on_the_device():
    if len(LEFT) < len(NETWORKS) * len(FORMS):
        pytest.skip("not all networks were run")
    assert set(ON_CPU) == {operator for counts in LEFT.values() for operator in counts}
