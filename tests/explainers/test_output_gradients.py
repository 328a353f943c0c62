"""Gradients of targets of any output against torch's autograd: regions, values, slices, cosines, contrasts of them."""

from __future__ import annotations

import json
import re

import numpy as np
import onnx
import pytest
from PIL import Image

import masktool
from masktool import Contrast, MasktoolError, OutputRegion, OutputSlice, OutputValue, Similarity, explain, load
from masktool.cli import run
from masktool.contract import Metadata, Preprocessing
from masktool.explainers.model_outputs import ModelOutputs
from masktool.explainers.target_gradient import GradientRequest, differentiate_targets, read_places
from masktool.runtime.preprocessing import PreparedImage

torch = pytest.importorskip("torch")

from networks.small_graphs import parse  # noqa: E402
from networks.two_outputs import NUMBERS, PLACES, SIZE, TwoOutputs, draw_images, two_outputs  # noqa: E402
from reference.carried import carry_map  # noqa: E402
from reference.layer_masking import MaskedInterpreter, MaskedReference  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")  # inside torch.export
CLOSE = 1e-5
"""Relative to the largest entry of the gradient."""
LABELS = ("sky", "road", "cat", "dog")
BOX = (5.0, 3.5, 21.0, 17.0)
"""A region that cuts through places, which see 2 x 2 pixels each."""
PIXELS = Preprocessing(SIZE, "exact", mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The network, exported without gradients and with those of either output, and a photograph."""
    folder = tmp_path_factory.mktemp("outputs")
    onnx.save(two_outputs(), folder / "two.onnx")
    masktool.export(folder / "two.onnx", folder / "bare.onnx", class_output="none", labels=LABELS, preprocessing=PIXELS)
    for output in ("scores", "embedding"):
        masktool.add_gradients_to(folder / "bare.onnx", folder / f"{output}.onnx", gradient_output=output)
    pixels = np.random.default_rng(1).integers(0, 256, (*SIZE, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "photo.png")
    return folder


@pytest.fixture(scope="module")
def sessions(folder):
    with load(folder / "scores.onnx", "cpu", threads=1) as scores, load(folder / "embedding.onnx", "cpu") as embedding:
        yield {"scores": scores, "embedding": embedding}


def region_shares():
    """The share of each place of the scores that lies in the box."""
    rows, columns = (
        np.clip(np.minimum(2 * np.arange(length) + 2, last) - np.maximum(2 * np.arange(length), first), 0, 2) / 2
        for length, first, last in zip(PLACES, BOX[1::-1], BOX[:1:-1], strict=True)
    )
    return torch.tensor(np.outer(rows, columns))


def mean_over_box(scores, index):
    return (scores[0, index] * region_shares()).sum() / region_shares().sum()


def cosine(embedding, reference):
    return torch.nn.functional.cosine_similarity(embedding, reference)[0]


ASKED = {
    "region": ("scores", OutputRegion("cat", BOX), lambda scores: mean_over_box(scores, 2)),
    "value": ("scores", OutputValue("scores", (1, 7, 9)), lambda scores: scores[0, 1, 7, 9]),
    "slice": ("scores", OutputSlice("scores", "1:3,2:9:3,:"), lambda scores: scores[0, 1:3, 2:9:3].mean()),
    "classes over a region": (
        "scores",
        Contrast(OutputRegion("cat", BOX), OutputRegion("sky", BOX)),
        lambda scores: mean_over_box(scores, 2) - mean_over_box(scores, 0),
    ),
    "values": (
        "scores",
        Contrast(OutputValue("scores", (1, 7, 9)), OutputValue("scores", (1, 7, 10))),
        lambda scores: scores[0, 1, 7, 9] - scores[0, 1, 7, 10],
    ),
    "number of an embedding": ("embedding", OutputValue("embedding", "3"), lambda found: found[0, 3]),
    "cosine": (
        "embedding",
        Similarity(draw_images(1, seed=9)[0], "embedding"),
        lambda found: cosine(found, TwoOutputs("embedding")(torch.tensor(draw_images(1, seed=9)).double())),
    ),
}


def autograd(output, score, image):
    """The gradient of a score of one output, and the score, in double precision."""
    given = torch.tensor(image).double().requires_grad_()
    value = score(TwoOutputs(output)(given))
    value.backward()
    return given.grad.numpy(), value.item()


@pytest.mark.parametrize(("output", "target", "score"), ASKED.values(), ids=ASKED)
def test_gradients_are_autograds(sessions, output, target, score):
    image = draw_images(1, seed=2)
    gradient, value = autograd(output, score, image)
    found = explain(sessions[output], image[0], "input-x-gradient", target)
    expected = (gradient * image)[0].sum(axis=0)
    np.testing.assert_allclose(found.model_attributions, expected, rtol=0, atol=CLOSE * np.abs(expected).max())
    assert found.quality["completeness_total"] == pytest.approx(value, rel=CLOSE, abs=1e-6)
    assert found.score == pytest.approx(value, rel=CLOSE, abs=1e-6)
    assert found.forward_passes == 1 + (2 if isinstance(target, Similarity) else 1)


def masked_values(module, image, mask):
    """The output of a module under layer masking, as the reference has it, for autograd to differentiate."""
    reference = MaskedReference(module, image.detach(), len(image))
    arguments = [*module.state_dict().values(), carry_map(image, mask)]
    (found,) = MaskedInterpreter(reference.program.graph_module).run(*arguments)
    return getattr(found, "value", found)


@pytest.mark.parametrize("name", ["region", "slice", "cosine"])
def test_under_a_mask_they_are_those_of_the_reference(sessions, name):
    """With respect to the image and the mask; soft, since binary ones tie in the smaller of two masks."""
    output, target, score = ASKED[name]
    session, image = sessions[output], draw_images(1, seed=3)
    mask = (0.05 + 0.9 * np.random.default_rng(4).random((1, 1, *SIZE))).astype(np.float32)
    leaves = [torch.tensor(each).double().requires_grad_() for each in (image, mask)]
    score(masked_values(TwoOutputs(output), *leaves)).backward()
    settled = settle(session, target, image)
    found = differentiate(session, [settled], image, mask)
    for ours, leaf in zip((found.image, found.mask), leaves, strict=True):
        exact = leaf.grad.numpy()
        np.testing.assert_allclose(ours, exact, rtol=0, atol=CLOSE * np.abs(exact).max())


def settle(session, target, image):
    """A target by its places in the outputs of an image with nothing missing."""
    from masktool.explainers.reading import read_scores
    from masktool.explainers.subject import make_subject

    subject = make_subject(image[0], session)
    fitted = target.fit(session.output_shapes, SIZE).look_up(session, subject, None)
    return fitted.settle(read_scores(session, subject, [fitted], None).whole)


def differentiate(session, targets, images, mask):
    masks = np.repeat(mask, len(images), axis=0)
    return differentiate_targets(GradientRequest(session, {}, "logit", ("image", "mask")), images, masks, targets)


def test_each_image_of_a_batch_has_its_own_target(sessions):
    session, images = sessions["embedding"], draw_images(3, seed=5)
    reference, number = (
        settle(session, ASKED["cosine"][1], images[:1]),
        settle(session, OutputValue("embedding", 3), images),
    )
    mask = np.ones((1, 1, *SIZE), np.float32)
    together = differentiate(session, [reference, number, reference], images, mask)
    for position, each in enumerate([reference, number, reference]):
        alone = differentiate(session, [each], images[position : position + 1], mask)
        assert together.objective[position] == pytest.approx(alone.objective[0], rel=1e-6)
        np.testing.assert_allclose(together.image[position], alone.image[0], rtol=0, atol=1e-6)


def test_integrated_gradients_of_a_region_add_up(sessions):
    image = draw_images(1, seed=6)
    found = explain(sessions["scores"], image[0], "integrated-gradients", "cat", region=BOX, n_steps=300)
    ends = [mean_over_box(TwoOutputs("scores")(torch.tensor(each).double()), 2).item() for each in (image, 0 * image)]
    total = ends[0] - ends[1]
    assert found.quality["completeness_total"] == pytest.approx(total, rel=CLOSE)
    assert found.model_attributions.sum(dtype=np.float64) == pytest.approx(total, rel=0.01)
    assert abs(found.quality["completeness_gap"]) <= 0.01 * abs(total)
    assert found.meaning == "share of the change in mean score from the baseline"


def test_a_learned_mask_keeps_what_the_region_rests_on(sessions):
    image = draw_images(1, seed=7)
    found = explain(sessions["scores"], image[0], "extremal", "cat", region=BOX, n_iterations=60, area=0.3)
    assert found.forward_passes == 1 + 60 + 3
    assert found.quality["score_soft"] > explain(sessions["scores"], 0 * image[0], "gradient", "cat", region=BOX).score
    assert "class_cut" not in found.quality
    assert found.quality["kept_cut"] in (True, False)
    assert bool(found.notes) == (not found.quality["kept_cut"])
    inside = np.zeros(SIZE, np.bool_)
    inside[3:17, 5:21] = True
    assert found.attributions[inside].mean() > 2 * found.attributions[~inside].mean()
    value = explain(sessions["scores"], image[0], "extremal", (1, 7, 9), output="scores", n_iterations=2)
    assert "kept_cut" not in value.quality
    assert value.notes == ()


@pytest.mark.parametrize("method", ["attribution-mask", "smoothgrad", "layercam", "grad-cam", "neuromask"])
def test_every_method_of_gradients_takes_a_region(sessions, method):
    options = {"n_samples": 3} if method in ("smoothgrad", "neuromask") else {}
    found = explain(sessions["scores"], draw_images(1)[0], method, "cat", region=BOX, **options)
    assert np.isfinite(found.attributions).all()
    assert np.ptp(found.attributions) > 0
    if method == "attribution-mask":
        assert found.quality["kept_soft"] in (0, 1)


@pytest.fixture
def command(folder, tmp_path, monkeypatch, capsys):
    """Runs ``masktool explain`` on the photograph; returns its exit code, its documents and what it says."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))

    def call(model, *typed):
        code = run(["explain", str(folder / "photo.png"), "-m", str(folder / model), "--provider", "cpu", *typed])
        captured = capsys.readouterr()
        return code, [json.loads(line) for line in captured.out.splitlines() if line.startswith("{")], captured.err

    return call


def test_the_command_exports_the_gradients_that_a_region_needs(command, folder, tmp_path):
    """Of the only segmentation, which is not named, and of a file that is masked and has no gradients yet."""
    typed = ["--region", "5,3.5,21,17", "--target", "cat", "--method", "grad-cam", "--method", "extremal"]
    code, documents, said = command(
        "bare.onnx", *typed, "--set", "n_iterations=5", "--json", "--format", "png", "-o", "."
    )
    assert code == 0
    assert "holds no gradients; adding those of output 'scores'" in said
    assert [each["settings"].get("feature_map") for each in documents] == ["narrow", None]
    assert {each["target"]["kind"] for each in documents} == {"region"}
    assert {each.name for each in tmp_path.glob("*.png")} == {"photo.grad-cam.png", "photo.extremal.png"}
    plain = ["--preprocess", "imagenet", "--class-output", "none", "--json"]
    code, _, said = command("two.onnx", *plain, "--region", "5,3,21,17", "--output", "scores", "--method", "gradient")
    assert code == 0
    assert "exporting it with gradients of output 'scores'" in said
    similar = ["--reference", str(folder / "photo.png"), "--output", "embedding"]
    code, _, said = command("two.onnx", *plain, *similar, "--method", "gradient")
    assert code == 0
    assert "exporting it with gradients of output 'embedding'" in said


def test_python_opens_the_right_file_by_itself(folder, monkeypatch, sessions):
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    image, said = draw_images(1)[0], []
    found = explain(folder / "bare.onnx", image, "gradient", "cat", region=BOX, providers="cpu", say=said.append)
    assert "gradients of output 'scores'" in " ".join(said) or "those of output 'scores'" in " ".join(said)
    same = explain(sessions["scores"], image, "gradient", "cat", region=BOX)
    np.testing.assert_array_equal(found.attributions, same.attributions)


REFUSED = {
    "another output": (
        "scores",
        "embedding",
        "3",
        r"needs gradients of output 'embedding', .* holds those of output 'scores'",
    ),
    "a class": ("scores", None, 0, r"no class output to explain"),
    "two outputs": (
        "scores",
        None,
        Contrast(OutputValue("scores", (1, 7, 9)), OutputValue("embedding", 3)),
        r"needs one gradient, and a file holds those of one output .*: output 'scores', output 'embedding'; take",
    ),
}


@pytest.mark.parametrize(("file", "output", "target", "message"), REFUSED.values(), ids=REFUSED)
def test_a_session_says_what_it_has_no_gradients_of(sessions, file, output, target, message):
    with pytest.raises(MasktoolError, match=message) as caught:
        explain(sessions[file], draw_images(1)[0], "gradient", target, output=output)
    assert "\n" not in str(caught.value)


def test_a_session_without_gradients_says_what_adds_them(folder):
    with load(folder / "bare.onnx", "cpu", threads=1) as session:
        expected = (
            r"output 'scores', and the file holds none .*add_gradients_to\(.*bare.onnx., .*gradient_output=.scores"
        )
        with pytest.raises(MasktoolError, match=expected):
            explain(session, draw_images(1)[0], "gradient", 1, region=BOX)


def test_what_has_no_gradient_is_refused_before_anything_is_exported(command, folder):
    for typed, message in (
        (["--target", "box:0"], "needs a gradient, and a detection has none (target box:0)"),
        (["--target", "1,7,9", "--output", "labels"], "only real numbers have a gradient (--gradient-output labels)"),
        (["--target", "1", "--output", "nothing"], "no such output (--gradient-output nothing)"),
    ):
        code, _, said = command("bare.onnx", *typed, "--method", "gradient")
        assert code == 2
        assert message in said.splitlines()[-1]
    with pytest.raises(MasktoolError, match=re.escape("needs gradients of one output, and the targets are of several")):
        masktool.explain_targets(
            folder / "bare.onnx", draw_images(1)[0], [OutputValue("embedding", 0), OutputRegion(0, BOX)], "gradient"
        )


def test_a_file_of_class_gradients_says_how_to_have_those_of_a_region(folder, tmp_path):
    masktool.export(folder / "two.onnx", tmp_path / "class.onnx", class_output="embedding", gradient="logit")
    with load(tmp_path / "class.onnx", "cpu", threads=1) as session:
        expected = (
            r"needs gradients of output 'scores', and the file holds those of class scores .*gradient_output=.scores"
        )
        with pytest.raises(MasktoolError, match=expected):
            explain(session, draw_images(1)[0], "gradient", 1, region=BOX)
        by_class = explain(
            session, draw_images(1)[0], "gradient", reference=draw_images(1, seed=9)[0], output="embedding"
        )
        assert by_class.forward_passes == 1 + NUMBERS
    with load(folder / "embedding.onnx", "cpu") as session:
        in_one = explain(
            session, draw_images(1)[0], "gradient", reference=draw_images(1, seed=9)[0], output="embedding"
        )
    np.testing.assert_allclose(
        in_one.attributions, by_class.attributions, rtol=0, atol=1e-5 * in_one.attributions.max()
    )


def outputs_of(values, layout="NCHW"):
    """Values of one output as those of a model."""
    metadata = Metadata(
        masking="layer", source="m", source_sha256="0" * 64, image_input="x", class_output=None, output_kind=None,
        preprocessing=None, labels=None, parity={}, tool_version="1", layout=layout,
    )  # fmt: skip
    prepared = PreparedImage(np.zeros((1, 3, *SIZE), np.float32), SIZE, SIZE, (0, 0, SIZE[1], SIZE[0]))
    return ModelOutputs(metadata, {"y": values}, prepared=prepared)


NUMBERS_OF = {
    "channels first": ((4, 12, 16), "NCHW", OutputRegion(2, BOX, "y")),
    "channels last": ((12, 16, 4), "NHWC", OutputRegion(2, BOX, "y")),
    "a value twice": ((6, 5), "NCHW", Contrast(OutputSlice("y", "1:4,2"), OutputSlice("y", "2:6,2"))),
    "every second": ((3, 7), "NCHW", OutputSlice("y", "2,1:7:2")),
    "one number": ((), "NCHW", OutputValue("y", ())),
    "cosine": ((2, 3), "NCHW", Similarity(np.zeros((3, *SIZE), np.float32), "y", np.arange(6, dtype=np.float32) - 2)),
}


@pytest.mark.parametrize(("shape", "layout", "target"), NUMBERS_OF.values(), ids=NUMBERS_OF)
def test_a_target_is_what_it_makes_of_its_numbers(shape, layout, target):
    """Read off the output or put together from its numbers; the derivatives against central differences."""
    values = np.random.default_rng(0).normal(size=(3, *shape))
    outputs = outputs_of(values, layout)
    settled = target.settle(outputs)
    numbers = read_places(values, settled)
    assert numbers.shape == (3, settled.n_numbers)
    combined = settled.combine(numbers)
    np.testing.assert_allclose(combined.values, settled.read(outputs), rtol=1e-6)
    step = 1e-6
    for position in range(0, settled.n_numbers, max(1, settled.n_numbers // 5)):
        moved = np.zeros_like(numbers)
        moved[:, position] = step
        slope = (settled.combine(numbers + moved).values - settled.combine(numbers - moved).values) / (2 * step)
        np.testing.assert_allclose(combined.weights[:, position], slope, rtol=1e-4, atol=1e-8)
    if settled.is_linear:
        np.testing.assert_array_equal(settled.combine(2 * numbers).weights, combined.weights)


def test_an_embedding_of_zeros_is_similar_to_nothing_and_has_no_slope():
    settled = NUMBERS_OF["cosine"][2].settle(outputs_of(np.ones((1, 2, 3))))
    combined = settled.combine(np.zeros((1, 6)))
    assert not combined.values.any()
    assert not combined.weights.any()


OPEN = """
<ir_version: 10, opset_import: ["" : 20]>
open (float[N, 3, H, W] image) => (float[N, 4, H, W] scores)
<float[4, 3, 3, 3] kernel>
{
    scores = Conv<pads = [1, 1, 1, 1]>(image, kernel)
}
"""


def test_an_output_of_open_size_tells_its_size_first(tmp_path):
    pixels = Preprocessing((9, 11), "exact")
    masktool.export(
        parse(OPEN), tmp_path / "m.onnx", class_output="none", gradient_output="scores", preprocessing=pixels
    )
    image = np.random.default_rng(0).normal(size=(3, 9, 11)).astype(np.float32)
    with load(tmp_path / "m.onnx", "cpu", threads=1) as session:
        found = explain(session, image, "gradient", (1, 4, 5), output="scores")
    assert found.forward_passes == 1 + 2
    seen = np.argwhere(found.attributions > 0)
    assert seen.min(axis=0).tolist() == [3, 4]
    assert seen.max(axis=0).tolist() == [5, 6]
