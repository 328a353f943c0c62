"""Many images are the general case: each is explained as it would be alone, whatever the method."""

import numpy as np
import pytest
from networks.small_graphs import classifier

import masktool
from masktool import MasktoolError, explain, explain_images, load
from masktool.progress import no_progress

OPTIONS = {
    "lime": {"n_samples": 12, "n_segments": 4},
    "rise": {"n_samples": 12},
    "gradient": {},
    "extremal": {"n_samples": 6},
}
TARGETS = [None, 1, "top"]


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """Four classes, images of 8 x 8, masked on the input, with gradients."""
    path = tmp_path_factory.mktemp("many") / "fill.onnx"
    masktool.export(classifier(), path, masking="fill", gradient="logit", output_kind="logits")
    with load(path, "cpu", threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def images():
    return list(np.random.default_rng(0).random((len(TARGETS), 3, 8, 8), np.float32))


@pytest.mark.parametrize("method", OPTIONS)
def test_each_image_gets_what_it_would_get_alone(session, images, method):
    options = OPTIONS[method] | {"seed": 5}
    found = explain_images(session, images, method, TARGETS, **options)
    for image, target, each in zip(images, TARGETS, found, strict=True):
        alone = explain(session, image, method, target, **options)
        np.testing.assert_allclose(each.attributions, alone.attributions, atol=1e-5)
        assert each.target == alone.target
        assert each.settings == alone.settings
        assert each.notes == alone.notes
        assert each.forward_passes == alone.forward_passes


@pytest.mark.parametrize(("method", "batches"), [("rise", 3), ("extremal", 1)])
def test_masks_of_all_images_are_learned_in_one_batch(session, images, method, batches):
    started = []

    def progress(description, total):
        started.append(total)
        return no_progress(description, total)

    explain_images(session, images, method, progress=progress, **OPTIONS[method])
    assert started == [OPTIONS[method]["n_samples"]] * batches


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": []}, "no images to explain"),
        ({"targets": [0]}, "targets do not fit the images: expected 3 targets, got 1"),
        ({"seed": -1}, "out of range .seed."),
        ({"seeds": 1}, "unknown option of LIME .seeds."),
        ({"score": "logits"}, "score.*expected probability"),
    ],
)
def test_bad_use_is_refused(session, images, arguments, message):
    with pytest.raises(MasktoolError, match=message):
        explain_images(session, **{"images": images, "method": "lime"} | arguments)
