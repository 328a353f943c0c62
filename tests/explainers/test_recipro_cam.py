"""Recipro-CAM: the head under masks against torch's independent rules, the published product, and its own file."""

import numpy as np
import onnx
import onnxruntime
import pytest
from networks.integer_sums import WEIGHT_RANGE
from networks.small_graphs import OPEN_SIZE, classifier, parse

import masktool
from masktool import MasktoolError, explain, explain_images, explain_targets, load
from masktool.explainers.methods.grad_cam import enlarge
from masktool.runtime.heads import NUMBERS_PER_PASS, choose_places, open_head

DEEP = """
<ir_version: 10, opset_import: ["" : 20]>
deep (float[N, 3, 16, 12] image) => (float[N, 4] logits)
<float[6, 3, 3, 3] k0, float[6] b0, float[8, 6, 3, 3] k1, float[8] b1, float[8, 8, 3, 3] k2, float[8] b2,
 float[8, 4] weight, float[4] offset>
{
    c0 = Conv<pads = [1, 1, 1, 1], strides = [2, 2]>(image, k0, b0)
    early = Relu(c0)
    c1 = Conv<pads = [1, 1, 1, 1], strides = [2, 2]>(early, k1, b1)
    inner = Relu(c1)
    c2 = Conv<pads = [1, 1, 1, 1]>(inner, k2, b2)
    joined = Add(c2, inner)
    late = Relu(joined)
    pooled = GlobalAveragePool(late)
    flat = Flatten(pooled)
    logits = Gemm(flat, weight, offset)
}
"""
"""``early`` and ``late`` are places that all passes through, and so is ``inner``; ``c2`` is inside a residual block."""
KIND = {"output_kind": "logits"}
SMALL = 0.25
"""What weights drawn from N(0, 1) are multiplied by, so that no probability is rounded to 1."""
ROUNDING = 2e-6


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(3).normal(size=(3, 16, 12)).astype(np.float32)


@pytest.fixture(scope="module")
def weights():
    return {each.name: onnx.numpy_helper.to_array(each) for each in network().graph.initializer}


def network(text=DEEP, **weights):
    """Returns the network of a text, its weights small."""
    model = parse(text)
    drawn = {each.name: SMALL * onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
    return parse(text, **{**drawn, **weights})


def write(path, head, **options):
    exported = masktool.export(network(), path, head=head, **KIND, **options)
    return exported.path


def run_part(outputs, feeds, model=None):
    """Runs the part of a plain network between some of its values and others in ONNX Runtime, by hand."""
    model = model or network()
    inferred = onnx.shape_inference.infer_shapes(model)
    part = onnx.utils.Extractor(inferred).extract_model(list(feeds), outputs)
    session = onnxruntime.InferenceSession(part.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(outputs, feeds)


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def place_masks(height, width, kernel=((1.0,),)):
    """Returns a mask (h * w, 1, h, w) for each place, with a kernel around it."""
    kernel = np.asarray(kernel, np.float32)
    reach = len(kernel) // 2
    masks = np.zeros((height * width, 1, height + 2 * reach, width + 2 * reach), np.float32)
    for index, (row, column) in enumerate(np.ndindex(height, width)):
        masks[index, 0, row : row + len(kernel), column : column + len(kernel)] = kernel
    return masks[:, :, reach : reach + height, reach : reach + width]


def scaled(scores):
    return (scores - scores.min()) / (scores.max() - scores.min())


def assert_scores(found, scores, size=(16, 12)):
    """Checks a map against the scores (h, w) of the target by place."""
    assert found.quality["lowest_score"] == pytest.approx(scores.min(), abs=ROUNDING)
    assert found.quality["highest_score"] == pytest.approx(scores.max(), abs=ROUNDING)
    expected = enlarge(scaled(scores).astype(np.float32), size)
    np.testing.assert_allclose(found.model_attributions, expected, atol=1e-4)


def test_behind_a_linear_head_it_is_the_class_activation_map(tmp_path, image, weights):
    """A mean over the one kept place is that place's features, so that its logits are W A(i, j) + b."""
    path = write(tmp_path / "m.onnx", "last")
    (features,) = run_part(["late"], {"image": image[None]})
    logits = np.einsum("chw,ck->hwk", features[0], weights["weight"]) + weights["offset"]
    for target in (0, 3):
        found = explain(path, image, "recipro-cam", target)
        assert_scores(found, softmax(logits)[..., target])
        assert found.settings["feature_map"] == "late"
        assert found.forward_passes == 1 + features[0, 0].size
        odds = explain(path, image, "recipro-cam", target, score="log-odds")
        shares = softmax(logits.astype(np.float64))[..., target]
        assert odds.quality["highest_score"] == pytest.approx(np.log(shares / (1 - shares)).max(), rel=1e-4)


@pytest.mark.parametrize("gaussian", [False, True])
@pytest.mark.parametrize("name", ["early", "inner"])
def test_under_layer_masking_it_is_what_torch_gives_by_rules_of_its_own(tmp_path, image, weights, name, gaussian):
    torch = pytest.importorskip("torch")
    from reference.layer_masking import MaskedReference

    class Layers(torch.nn.Module):
        def forward(self, features):
            k1, b1, k2, b2, weight, offset = (
                torch.from_numpy(weights[each].copy()) for each in ("k1", "b1", "k2", "b2", "weight", "offset")
            )
            if name == "early":
                features = torch.relu(torch.nn.functional.conv2d(features, k1, b1, stride=2, padding=1))
            behind = torch.nn.functional.conv2d(features, k2, b2, padding=1)
            pooled = torch.nn.functional.adaptive_avg_pool2d(torch.relu(behind + features), 1)
            return torch.flatten(pooled, 1) @ weight + offset

    path = write(tmp_path / "m.onnx", name)
    (features,) = run_part([name], {"image": image[None]})
    height, width = features.shape[2:]
    kernel = [[0.25, 0.5, 0.25], [0.5, 1, 0.5], [0.25, 0.5, 0.25]] if gaussian else [[1.0]]
    given, masks = torch.from_numpy(features), torch.from_numpy(place_masks(height, width, kernel))
    logits = MaskedReference(Layers(), given, len(masks))(given, masks).numpy()
    found = explain(path, image, "recipro-cam", 1, gaussian=gaussian)
    assert_scores(found, softmax(logits)[:, 1].reshape(height, width))


@pytest.mark.parametrize("gaussian", [False, True])
@pytest.mark.parametrize("name", ["early", "late"])
def test_under_fill_masking_it_is_the_published_product(tmp_path, image, name, gaussian):
    path = write(tmp_path / "m.onnx", name, masking="fill")
    (features,) = run_part([name], {"image": image[None]})
    height, width = features.shape[2:]
    kernel = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16 if gaussian else [[1.0]]
    (logits,) = run_part(["logits"], {name: features * place_masks(height, width, kernel)})
    found = explain(path, image, "recipro-cam", 2, gaussian=gaussian)
    assert_scores(found, softmax(logits)[:, 2].reshape(height, width))


def test_passes_of_any_size_give_one_map(tmp_path, image):
    path = write(tmp_path / "m.onnx", "early")
    with load(path, "cpu", threads=1) as session:
        maps = [
            explain(session, image, "recipro-cam", 0, perturbations_per_eval=size).model_attributions
            for size in (1, 7, 48, 100)
        ]
    for each in maps[1:]:
        np.testing.assert_allclose(each, maps[0], atol=1e-5)


def test_targets_share_the_passes_and_images_do_not_change_one_another(tmp_path, image):
    path = write(tmp_path / "m.onnx", "last")
    with load(path, "cpu", threads=1) as session:
        both = explain_targets(session, image, [1, 2], "recipro-cam")
        assert both[0].forward_passes == 1 + 4 * 3
        other = np.flip(image, axis=2).copy()
        found = explain_images(session, [image, other], "recipro-cam", [1, 2])
        alone = explain(session, other, "recipro-cam", 2)
    assert np.array_equal(found[0].model_attributions, both[0].model_attributions)
    assert np.array_equal(found[1].model_attributions, alone.model_attributions)
    assert not np.array_equal(found[0].model_attributions, found[1].model_attributions)


def test_the_number_of_places_in_a_pass_is_bounded(tmp_path, monkeypatch):
    path = write(tmp_path / "m.onnx", "early")
    with load(path, "cpu", threads=1) as session:
        head = open_head(session)
        assert open_head(session) is head
        assert choose_places(head, None) == 256  # NUMBERS_PER_PASS reaches for many more of 6 x 8 x 6 numbers
        assert choose_places(head, 5) == 5
        monkeypatch.setattr("masktool.runtime.heads.NUMBERS_PER_PASS", 10 * 6 * 8 * 6)
        assert choose_places(head, None) == 10
    assert NUMBERS_PER_PASS == 8 * 64 * 112 * 112


def test_a_flat_map_is_noted(tmp_path, image):
    weights = {"k0": np.zeros((6, 3, 3, 3)), "b0": np.ones(6)}
    masktool.export(network(DEEP, **weights, weight=np.zeros((8, 4))), tmp_path / "m.onnx", head="last", **KIND)
    found = explain(tmp_path / "m.onnx", image, "recipro-cam", 0)
    assert not found.model_attributions.any()
    assert any("the score is the same whichever place" in note for note in found.notes)


def test_a_quantised_network(tmp_path, image):
    """The head computes on the integers that the whole network computes on."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    class Images(CalibrationDataReader):
        def __init__(self):
            self.left = [{"image": each[None]} for each in np.random.default_rng(0).normal(size=(8, 3, 16, 12))]

        def get_next(self):
            return {name: value.astype(np.float32) for name, value in self.left.pop().items()} if self.left else None

    onnx.save(network(DEEP), tmp_path / "float.onnx")
    options = {"quant_format": QuantFormat.QDQ, **WEIGHT_RANGE}
    quantize_static(tmp_path / "float.onnx", tmp_path / "q.onnx", Images(), **options)
    quantised = onnx.load(tmp_path / "q.onnx")
    (name,) = [node.output[0] for node in quantised.graph.node if node.input[0] == "early_QuantizeLinear_Output"]
    (features,) = run_part([name], {"image": image[None]}, quantised)
    (logits,) = run_part(["logits"], {name: features * place_masks(8, 6)}, quantised)
    exported = masktool.export(tmp_path / "q.onnx", tmp_path / "m.onnx", head="early", masking="fill", **KIND)
    assert exported.metadata.parity["head"] == 0
    assert_scores(explain(tmp_path / "m.onnx", image, "recipro-cam", 1), softmax(logits)[:, 1].reshape(8, 6))

    exported = masktool.export(tmp_path / "q.onnx", tmp_path / "m.onnx", head="last", **KIND)
    assert exported.metadata.parity["head"] == 0
    (name,) = [node.output[0] for node in quantised.graph.node if node.input[0] == "late_QuantizeLinear_Output"]
    (features,) = run_part([name], {"image": image[None]}, quantised)
    each_alone = features[0].reshape(8, 12, 1, 1).transpose(1, 0, 2, 3)  # the mean over one place is its features
    (logits,) = run_part(["logits"], {"pooled": each_alone}, quantised)
    assert_scores(explain(tmp_path / "m.onnx", image, "recipro-cam", 1), softmax(logits)[:, 1].reshape(4, 3))


def test_a_plain_file_is_exported_with_a_head_into_the_cache(tmp_path, image, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    onnx.save(network(DEEP), tmp_path / "plain.onnx")
    said = []
    first = explain(tmp_path / "plain.onnx", image, "recipro-cam", 1, say=said.append, **KIND)
    again = explain(tmp_path / "plain.onnx", image, "recipro-cam", 1, say=said.append, **KIND)
    assert "exporting it with a head" in said[0]
    assert "using its export" in said[1]
    assert np.array_equal(first.attributions, again.attributions)
    early = explain(tmp_path / "plain.onnx", image, "recipro-cam", 1, feature_map="early", **KIND)
    assert early.settings["feature_map"] == "early"
    heads = sorted((tmp_path / "cache").rglob("*.head.onnx"))
    assert len(heads) == 2
    for head in heads:
        head.write_bytes(head.read_bytes()[:-1])  # a damaged head is made anew
    repeated = explain(tmp_path / "plain.onnx", image, "recipro-cam", 1, say=said.append, **KIND)
    assert "its bytes are not those that were written" in said[2]
    assert np.array_equal(first.attributions, repeated.attributions)


def test_with_gradients_the_file_serves_both_methods(tmp_path, image):
    path = write(tmp_path / "m.onnx", "early", gradient="logit")
    with load(path, "cpu", threads=1) as session:
        assert explain(session, image, "grad-cam", 1).settings["feature_map"] == "early"
        found = explain(session, image, "recipro-cam", 1)
    plain = explain(write(tmp_path / "n.onnx", "early"), image, "recipro-cam", 1)
    np.testing.assert_allclose(found.model_attributions, plain.model_attributions, atol=1e-5)


def test_gradients_that_are_added_keep_the_head(tmp_path, image):
    path = write(tmp_path / "m.onnx", "early")
    plain = explain(path, image, "recipro-cam", 1)
    exported = masktool.add_gradients_to(path, tmp_path / "g.onnx")
    assert (exported.metadata.feature_map, exported.metadata.head) == ("early", "g.head.onnx")
    found = explain(tmp_path / "g.onnx", image, "recipro-cam", 1)
    np.testing.assert_allclose(found.model_attributions, plain.model_attributions, atol=1e-5)
    other = masktool.add_gradients_to(path, tmp_path / "h.onnx", feature_map="late")
    assert (other.metadata.feature_map, other.metadata.head) == ("late", None)


def test_another_input_is_fed_to_the_head_too(tmp_path):
    text = DEEP.replace("image) =>", "image, float[1] warmth) =>").replace(
        "logits = Gemm(flat, weight, offset)", "cold = Gemm(flat, weight, offset)\n    logits = Mul(cold, warmth)"
    )
    masktool.export(network(text), tmp_path / "m.onnx", head="late", class_output="logits", **KIND)
    image = np.random.default_rng(3).normal(size=(3, 16, 12)).astype(np.float32)
    with load(tmp_path / "m.onnx", "cpu", threads=1) as session:
        one, half = (
            explain(session, image, "recipro-cam", 1, inputs={"warmth": np.array([each], np.float32)})
            for each in (1.0, 0.5)
        )
    assert one.quality["highest_score"] > half.quality["highest_score"] > 0.25


def test_a_file_without_a_head_is_told_with_what_mends_it(tmp_path, image):
    masktool.export(network(DEEP), tmp_path / "m.onnx", **KIND)
    wanted = r'exported without a head \(.*m\.onnx\); export it with one: .*export\("deep", "NEW.onnx", head="last"\)'
    for model in (tmp_path / "m.onnx", load(tmp_path / "m.onnx", "cpu")):
        with pytest.raises(MasktoolError, match=wanted):
            explain(model, image, "recipro-cam")


def test_a_head_that_is_missing_or_of_another_export_is_told(tmp_path, image):
    path = write(tmp_path / "m.onnx", "early")
    write(tmp_path / "other.onnx", "late")
    head = tmp_path / "m.head.onnx"
    own = head.read_bytes()
    head.write_bytes((tmp_path / "other.head.onnx").read_bytes())
    with pytest.raises(MasktoolError, match="the head beside the file is of another export"):
        explain(path, image, "recipro-cam")
    head.unlink()
    with pytest.raises(MasktoolError, match=r"head is missing .*m\.head\.onnx beside it.*head=.early."):
        explain(path, image, "recipro-cam")
    head.write_bytes(own)
    with pytest.raises(MasktoolError, match=r"head begins behind another feature map .*late.*early"):
        explain(path, image, "recipro-cam", feature_map="late")
    with (
        load(path, "cpu") as session,
        pytest.raises(MasktoolError, match=r"head begins behind another feature map \(late\)"),
    ):
        explain(session, image, "recipro-cam", feature_map="late")
    with pytest.raises(MasktoolError, match=r"the file is a head.*'early' alone"):
        explain(head, image, "lime")


@pytest.mark.parametrize(
    ("model", "options", "told"),
    [
        (network(DEEP), {"head": "c2"}, r"around the feature map.*\(c2\).*such as .*early.*late"),
        (network(DEEP), {"head": "nothing"}, r"no such feature map \(nothing\).*late"),
        (network(DEEP), {"head": "early", "portable": True}, r"portable file takes one mask at a time"),
        (
            network(DEEP),
            {"head": "early", "feature_map": "late", "gradient": "logit"},
            r"behind one of.*late.*early",
        ),
        (parse(OPEN_SIZE), {"head": "last"}, r"feature map of a fixed size.*input_size"),
        (classifier(), {"head": "last", "class_output": "none", "output_kind": None}, r"class scores, and the model"),
        (
            network(DEEP.replace("logits)", "logits, float[N, 6, 8, 6] feature_map)").replace("early", "feature_map")),
            {"head": "last", "class_output": "logits"},
            r"an output of the name",
        ),
    ],
)
def test_what_has_no_head_is_refused_with_the_reason(tmp_path, model, options, told):
    with pytest.raises(MasktoolError, match=told):
        masktool.export(model, tmp_path / "m.onnx", **{**KIND, **options})
    assert list(tmp_path.iterdir()) == []


def test_a_check_measures_the_head_too(tmp_path, capsys):
    from masktool.interface.check import check_export

    path = write(tmp_path / "m.onnx", "early")
    figures = {each.figure: each for each in check_export(path, network()).verdicts}
    assert figures["head"].passed
    assert figures["head"].value == 0
    assert {each.figure for each in check_export(tmp_path / "m.head.onnx").verdicts} >= {"left_out", "invariance"}
    with pytest.raises(MasktoolError, match="layers behind 'early' alone"):
        check_export(tmp_path / "m.head.onnx", network())
    (tmp_path / "m.head.onnx").unlink()
    with pytest.raises(MasktoolError, match="head is missing"):
        check_export(path, network())


def test_the_command_line_does_it_in_two_commands(tmp_path, image, capsys):
    from masktool.cli import run as main

    onnx.save(network(), tmp_path / "m.onnx")
    np.save(tmp_path / "image.npy", image)
    masked = str(tmp_path / "m.masked.onnx")
    assert main(["export", str(tmp_path / "m.onnx"), "-o", masked, "--head", "last", "--output-kind", "logits"]) == 0
    assert "head: the layers behind 'late', in m.masked.head.onnx" in capsys.readouterr().err
    assert main(["info", masked]) == 0
    told = capsys.readouterr().out
    assert "feature map   late" in told
    assert "the layers behind it, in m.masked.head.onnx" in told
    assert main(["info", str(tmp_path / "m.masked.head.onnx")]) == 0
    assert "the layers behind the feature map 'late', which is the image input" in capsys.readouterr().out
    asked = ["explain", str(tmp_path / "image.npy"), "-m", masked, "--method", "recipro-cam", "--json"]
    assert main(asked) == 0
    assert '"feature_map":"late"' in capsys.readouterr().out.replace(" ", "")
    assert main([*asked, "--set", "feature_map=early"]) != 0
    assert "--head early" in capsys.readouterr().err
    assert main([*asked, "--method", "grad-cam"]) == 0  # gradients are added in the cache, where the head goes along
