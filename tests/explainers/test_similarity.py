"""Similarity to a reference against torch and ONNX Runtime, siamese networks, and what is refused of either."""

from __future__ import annotations

import json
import pickle

import numpy as np
import onnx
import onnxruntime
import pytest
from networks.small_graphs import parse
from networks.unusual_graphs import HEADER, open_network, random_images
from PIL import Image

import masktool
from explainers.models import noise_photograph
from masktool import Contrast, MasktoolError, Similarity, explain, load
from masktool.cli import run
from masktool.contract import Preprocessing
from masktool.explainers.image_inputs import prepare_inputs
from masktool.explainers.target_gradient import check_differentiable
from masktool.interface.folders.names import name_file
from masktool.interface.rows import explanation_row

SIZE = (16, 24)
PIXELS = Preprocessing(size=SIZE, resize="exact")
EMBEDDER = f"""{HEADER}
    embedder (float[N, 3, 16, 24] image) => (float[N, 5] embedding)
    <float[6, 3, 3, 3] kernel, float[6, 5] weight>
    {{
        h = Conv<pads = [1, 1, 1, 1], strides = [2, 2]>(image, kernel)
        r = Relu(h)
        p = GlobalAveragePool(r)
        f = Flatten(p)
        embedding = MatMul(f, weight)
    }}"""
SIAMESE = f"""{HEADER}
    siamese (float[N, 3, 16, 24] left, float[N, 3, 16, 24] right) => (float[N, 1] same)
    <float[6, 3, 3, 3] kernel, float[6, 1] weight>
    {{
        a = Conv<pads = [1, 1, 1, 1], strides = [2, 2]>(left, kernel)
        ar = Relu(a)
        ap = GlobalAveragePool(ar)
        b = Conv<pads = [1, 1, 1, 1], strides = [2, 2]>(right, kernel)
        br = Relu(b)
        bp = GlobalAveragePool(br)
        d = Sub(ap, bp)
        e = Abs(d)
        f = Flatten(e)
        g = MatMul(f, weight)
        same = Sigmoid(g)
    }}"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A network of embeddings, its export with gradients, and two photographs."""
    folder = tmp_path_factory.mktemp("similar")
    onnx.save(parse(EMBEDDER), folder / "embedder.onnx")
    masktool.export(
        folder / "embedder.onnx", folder / "masked.onnx", class_output="embedding", gradient="logit",
        preprocessing=PIXELS,
    )  # fmt: skip
    for name, seed in (("photo.png", 1), ("cat.png", 2)):
        Image.fromarray(noise_photograph((40, 30), seed)).save(folder / name)
    return folder


@pytest.fixture(scope="module")
def session(folder):
    with load(folder / "masked.onnx", "cpu", threads=1) as opened:
        yield opened


def embed(folder, image):
    """The embedding of an image (3, 16, 24), from the network as it was before any export."""
    network = onnxruntime.InferenceSession(str(folder / "embedder.onnx"), providers=["CPUExecutionProvider"])
    return network.run(None, {"image": image[None]})[0][0].astype(np.float64)


def cosine(first, second):
    return first @ second / np.linalg.norm(first) / np.linalg.norm(second)


def test_the_similarity_is_the_cosine_of_the_embeddings_of_the_plain_network(folder, session):
    image, reference = random_images(2, 3, *SIZE)
    found = explain(session, image, "occlusion", reference=reference, sliding_window_shapes=SIZE, strides=SIZE)
    expected = cosine(embed(folder, image), embed(folder, reference))
    assert found.score == pytest.approx(expected, abs=1e-6)
    nothing = session.run(image[None], np.zeros((1, 1, *SIZE)))["embedding"][0].astype(np.float64)
    assert not nothing.any()  # everything is hidden and nothing has a bias: similar to nothing
    np.testing.assert_allclose(found.attributions, found.score, atol=1e-6)
    itself = explain(session, reference, "occlusion", reference=reference)
    assert itself.score == pytest.approx(1, abs=1e-6)
    assert (found.score_name, found.name, found.output) == (
        "cosine similarity",
        "similarity to another image",
        "embedding",
    )


def test_every_mask_is_judged_by_the_same_reference(session):
    image, reference = random_images(2, 3, *SIZE, seed=3)
    half = np.ones((1, 1, *SIZE), np.float32)
    half[..., 12:] = 0
    options = {"sliding_window_shapes": (16, 12), "strides": (16, 12)}
    found = explain(session, image, "occlusion", reference=reference, **options)
    whole, hidden, other = (
        session.run(each[None], mask)["embedding"][0].astype(np.float64)
        for each, mask in ((image, None), (image, half), (reference, None))
    )
    expected = cosine(whole, other) - cosine(hidden, other)
    np.testing.assert_allclose(found.attributions[:, 12:], expected, atol=1e-6)


def test_its_gradient_is_autograds(session):
    torch = pytest.importorskip("torch")
    weights = {each.name: torch.tensor(onnx.numpy_helper.to_array(each)) for each in parse(EMBEDDER).graph.initializer}
    image, reference = random_images(2, 3, *SIZE, seed=4)

    def embedding(given):
        features = torch.nn.functional.conv2d(given, weights["kernel"], stride=2, padding=1).relu().mean(dim=(2, 3))
        return features @ weights["weight"]

    given = torch.tensor(image[None]).requires_grad_()
    torch.nn.functional.cosine_similarity(embedding(given), embedding(torch.tensor(reference[None]))).backward()
    expected = np.abs(given.grad.numpy()[0]).max(axis=0)
    found = explain(session, image, "gradient", reference=reference)
    np.testing.assert_allclose(found.model_attributions, expected, rtol=0, atol=1e-5 * expected.max())
    assert found.forward_passes == 1 + 5


@pytest.mark.parametrize(
    ("method", "options"), [("lime", {"n_samples": 40, "n_segments": 8}), ("extremal", {"n_samples": 2})]
)
def test_methods_of_masks_take_it(session, method, options):
    image, reference = random_images(2, 3, *SIZE, seed=5)
    found = explain(session, image, method, reference=reference, **options)
    assert np.isfinite(found.attributions).all()
    assert np.ptp(found.attributions) > 0


def test_more_like_one_than_like_another(session):
    image, first, second = random_images(3, 3, *SIZE, seed=6)
    found = explain(session, image, "occlusion", Contrast(Similarity(first), Similarity(second)))
    scores = [explain(session, image, "occlusion", reference=each).score for each in (first, second)]
    assert found.score == pytest.approx(scores[0] - scores[1], abs=1e-9)
    assert found.score_name == "difference of cosine similarities"


def test_a_reference_takes_one_pass_for_any_number_of_images(folder):
    with load(folder / "masked.onnx", "cpu", threads=1) as session:
        images = random_images(2, 3, *SIZE, seed=7)
        found = [explain(session, each, "occlusion", reference=folder / "cat.png") for each in images]
        assert session.forward_passes == 1 + sum(each.forward_passes for each in found)
    asked = found[0].question
    assert (
        pickle.loads(pickle.dumps(asked))
        == asked
        != explain(folder / "masked.onnx", images[0], "occlusion", reference=images[1]).question
    )
    assert name_file("photo", found[0], "png", several=True) == "photo.occlusion.similarity-to-cat-png.png"
    row = explanation_row(found[0], "photo", None)
    assert (row["output"], row["place"], json.loads(row["asked"])["kind"]) == ("embedding", None, "similarity")


def test_the_command_explains_a_photograph_by_a_reference(folder, capsys):
    typed = ["explain", str(folder / "photo.png"), "-m", str(folder / "masked.onnx"), "--method", "occlusion"]
    assert (
        run([*typed, "--reference", str(folder / "cat.png"), "--json", "--format", "png", "-o", str(folder / "out")])
        == 0
    )
    document = json.loads(capsys.readouterr().out)
    assert document["target"]["reference"]["name"] == "cat.png"
    assert -1 <= document["target"]["cosine similarity"] <= 1
    assert (folder / "out" / "photo.occlusion.png").exists()
    assert run([*typed, "--reference", str(folder / "gone.png")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


BAD = [
    ({"target": 1}, r"a reference is a target itself \(reference, target\); leave one of them out"),
    ({"against": 1}, "a reference is a target itself"),
    ({"score": "log-odds"}, "log-odds are of classes' scores"),
    ({"output": "code"}, "no such output"),
    (
        {"reference": np.zeros((3, *SIZE), np.float32)},
        "embedding of zeros has no direction .*of another image.*take another",
    ),
    ({"reference": np.full((3, *SIZE), np.nan, np.float32)}, "an embedding that is not finite"),
    ({"reference": np.zeros((3, 16, 16), np.float32)}, "does not fit the model"),
    ({"method": "eigen-cam"}, "needs|one map|explains classes"),
]


@pytest.mark.parametrize(("asked", "message"), BAD)
def test_what_is_no_reference_is_refused_in_one_line(session, asked, message):
    image, reference = random_images(2, 3, *SIZE)
    with pytest.raises(MasktoolError, match=message) as caught:
        explain(session, image, **{"method": "occlusion", "reference": reference} | asked)
    assert "\n" not in caught.value.message


def test_an_image_of_zeros_has_no_direction(session):
    with pytest.raises(MasktoolError, match=r"embedding of zeros has no direction .*of the image"):
        explain(session, np.zeros((3, *SIZE), np.float32), "occlusion", reference=random_images(1, 3, *SIZE)[0])


def test_a_reference_of_another_size_than_an_image_of_open_size(tmp_path):
    masktool.export(
        open_network(), tmp_path / "open.onnx", preprocessing=Preprocessing((20, 28), "exact"), gradient=None
    )
    image, other = random_images(1, 3, 20, 28)[0], random_images(1, 3, 24, 28)[0]
    with load(tmp_path / "open.onnx", "cpu", threads=1) as session:
        with pytest.raises(MasktoolError, match=r"a reference of another size .*expected 20 x 28.*got 24 x 28"):
            explain(session, image, "occlusion", reference=other)
        found = explain(session, other, "occlusion", reference=noise_photograph((60, 40)))  # prepared to the image's
        assert found.attributions.shape == (24, 28)
        with pytest.raises(MasktoolError, match=r"Grad-CAM|gradients"):
            explain(session, image, "gradient", reference=image)


def test_several_outputs_are_a_question(tmp_path):
    two = (
        EMBEDDER.replace("(float[N, 5] embedding)", "(float[N, 5] embedding, float[N, 6] code)")
        .replace("f = Flatten", "code = Flatten")
        .replace("MatMul(f,", "MatMul(code,")
    )
    masktool.export(parse(two), tmp_path / "two.onnx", class_output="none", preprocessing=PIXELS)
    image, reference = random_images(2, 3, *SIZE)
    with load(tmp_path / "two.onnx", "cpu", threads=1) as session:
        with pytest.raises(MasktoolError, match=r"several outputs may be the embedding.*code \(N, 6\).*output=NAME"):
            explain(session, image, "occlusion", reference=reference)
        assert explain(session, image, "occlusion", reference=reference, output="code").output == "code"
        refused = Similarity(reference, "code").look_up(session, masktool_subject(session, image), None)
        outputs = session_outputs(session, image)
        with pytest.raises(MasktoolError, match=r"output 'code', and the file holds none.*gradient_output=.code"):
            check_differentiable("Gradient", refused.settle(outputs), session.metadata, session.path)


def masktool_subject(session, image):
    from masktool.explainers.subject import make_subject

    return make_subject(image, session)


def session_outputs(session, image):
    from masktool.explainers.model_outputs import ModelOutputs

    return ModelOutputs(session.metadata, session.run(image[None]))


@pytest.fixture(scope="module")
def siamese(tmp_path_factory):
    path = tmp_path_factory.mktemp("siamese") / "masked.onnx"
    masktool.export(parse(SIAMESE), path, image_input="left", preprocessing=PIXELS)
    with load(path, "cpu", threads=1) as opened:
        yield opened


def test_the_other_image_of_a_siamese_network_is_prepared_alike_and_never_masked(siamese, folder):
    photograph, other = (Image.open(folder / name) for name in ("photo.png", "cat.png"))
    options = {"sliding_window_shapes": SIZE, "strides": SIZE}
    found = explain(siamese, photograph, "occlusion", 1, inputs={"right": other}, **options)
    left, right = (
        np.asarray(each.resize(SIZE[::-1], Image.Resampling.BILINEAR)).transpose(2, 0, 1)[None].astype(np.float32) / 255
        for each in (photograph, other)
    )
    same = explain(siamese, photograph, "occlusion", 1, inputs={"right": right}, **options)
    np.testing.assert_array_equal(found.attributions, same.attributions)
    assert found.settings["inputs"] == same.settings["inputs"]
    network = onnxruntime.InferenceSession(parse(SIAMESE).SerializeToString(), providers=["CPUExecutionProvider"])
    (expected,) = network.run(None, {"left": left, "right": right})
    assert found.score == pytest.approx(float(expected[0, 0]), abs=1e-6)
    (black,) = network.run(None, {"left": 0 * left, "right": right})  # no bias: all hidden is as all black
    np.testing.assert_allclose(found.attributions, expected[0, 0] - black[0, 0], atol=1e-6)
    paths = explain(siamese, folder / "photo.png", "occlusion", 1, inputs={"right": str(folder / "cat.png")}, **options)
    np.testing.assert_array_equal(paths.attributions, found.attributions)


def test_the_command_feeds_a_photograph_to_the_other_input(siamese, folder, capsys):
    typed = ["explain", str(folder / "photo.png"), "-m", str(siamese.path), "--method", "occlusion", "--json"]
    assert run([*typed, "--input", f"right={folder / 'cat.png'}"]) == 0
    assert json.loads(capsys.readouterr().out)["settings"]["inputs"]["right"]["shape"] == [1, 3, *SIZE]
    assert run(typed) == 2
    assert "'right' float32 (N, 3, 16, 24)); give --input NAME=VALUE or NAME=FILE" in capsys.readouterr().err
    assert run([*typed, "--input", f"wrong={folder / 'cat.png'}"]) == 2


def test_a_photograph_for_an_input_that_takes_none(siamese):
    from masktool.runtime.inputs import OtherInput

    class Fake:
        """The session with an input of facts."""

        other_inputs = (OtherInput("facts", np.dtype(np.float32), (None, 2), per_result=True),)
        layout, input_shape, channels = siamese.layout, siamese.input_shape, siamese.channels

    with pytest.raises(MasktoolError, match=r"takes none like the image \(input 'facts'\): expected \(N, 2\)"):
        prepare_inputs(Fake(), {"facts": Image.new("RGB", (4, 4))}, None)
    assert prepare_inputs(Fake(), None, None) is None


def test_a_photograph_for_an_input_has_two_sides(siamese):
    with pytest.raises(MasktoolError, match=r"have a height and a width \(input_size\): 1000"):
        prepare_inputs(siamese, {"right": Image.new("RGB", (4, 4))}, (1000,))
