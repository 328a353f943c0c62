"""The training script: reproducible, bias-free where that is asked for, and what networks of tokens learn from."""

import dataclasses
import math

import numpy as np
import pytest

from masktool.demo import shapes

torch = pytest.importorskip("torch")
from shapes_variants import TOKEN_SIZE, TokenLoss, turn  # noqa: E402

BRIEF = {"pictures": 96, "epochs": 1}


@pytest.fixture(scope="module")
def standard(training):
    return training.train(dataclasses.replace(training.RECIPES["standard"], **BRIEF), seed=0)


@pytest.fixture(scope="module")
def bias_free(training):
    return training.train(dataclasses.replace(training.RECIPES["bias-free"], **BRIEF), seed=0)


def measure_completeness_gap(network, training):
    """max |logit - sum of gradient times input|, relative to max |logit|."""
    images = training.normalise(shapes.draw(1, 6).images).requires_grad_()
    logits = network(images)
    gaps = []
    for label in range(logits.shape[1]):
        (gradient,) = torch.autograd.grad(logits[:, label].sum(), images, retain_graph=True)
        gaps.append((logits[:, label] - (gradient * images).sum(dim=(1, 2, 3))).abs().max().item())
    return max(gaps) / logits.abs().max().item()


@pytest.mark.slow
def test_same_seed_same_weights(standard, training):
    recipe = dataclasses.replace(training.RECIPES["standard"], **BRIEF)
    again, other = training.train(recipe, seed=0).state_dict(), training.train(recipe, seed=1).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in standard.state_dict().items())
    assert not torch.equal(again["classifier.weight"], other["classifier.weight"])


def test_gradient_times_input_is_complete_without_biases_only(standard, bias_free, training):
    assert measure_completeness_gap(bias_free, training) < 1e-4  # float32 sums over 12,288 inputs
    assert measure_completeness_gap(standard, training) > 0.1


def test_bias_free_network_is_homogeneous(bias_free, training):
    images = training.normalise(shapes.draw(2, 4).images)
    with torch.inference_mode():
        assert torch.allclose(bias_free(3 * images), 3 * bias_free(images), rtol=1e-4)
        assert not bias_free(0 * images).any()


def test_uncentred_norm_divides_by_the_root_mean_square(training):
    norm = training.ShapesNetwork(8, bias=False).stem[1]
    x = torch.randn(5, 16, 7, 7) * 3 + 2
    assert norm(x).square().mean(dim=(0, 2, 3)).detach().numpy() == pytest.approx(1, abs=1e-4)
    for _ in range(200):
        norm(x)
    assert torch.allclose(norm.eval()(x), x / x.square().mean(dim=(0, 2, 3), keepdim=True).sqrt(), rtol=1e-4)


def test_program_is_small_takes_any_batch_and_names_no_directory(standard, training, tmp_path):
    path = tmp_path / "shapes.pt2"
    training.save_program(standard, path)
    module = torch.export.load(path).module()
    images = training.normalise(shapes.draw(3, 5).images)
    with torch.inference_mode():
        for batch in (images, images[:1]):
            assert torch.allclose(module(batch), standard(batch), atol=1e-5)
    content = path.read_bytes()
    assert len(content) < 1_000_000
    assert str(training.DATA.parents[2]).encode() not in content


class Answering(torch.nn.Module):
    """Gives the same answers whatever the pictures."""

    def __init__(self, answers):
        super().__init__()
        self.answers = answers

    def forward(self, image):
        return self.answers[: len(image)]


def test_accuracy_counts_right_answers(training):
    drawn = shapes.draw(4, 16)
    answers = torch.nn.functional.one_hot(torch.from_numpy(drawn.labels), 8).float()
    answers[:4] = answers[:4].roll(1, dims=1)
    assert training.measure_accuracy(Answering(answers), drawn) == 12 / 16


def test_pixels_are_normalised_by_the_sets_figures(training):
    picture = np.full((1, 2, 2, 3), 255, np.uint8)
    assert training.normalise(picture).shape == (1, 3, 2, 2)
    assert training.normalise(picture).numpy() == pytest.approx((1 - shapes.MEAN[0]) / shapes.STD[0])


class TellingTokens(torch.nn.Module):
    """Tokens that hold what a picture (N, classes, 64, 64) of its object alone has in their patches."""

    def __init__(self):
        super().__init__()
        self.classifier = torch.nn.Linear(TOKEN_SIZE, 8)
        torch.nn.init.zeros_(self.classifier.weight)
        torch.nn.init.zeros_(self.classifier.bias)

    def find_tokens(self, image):
        patches = image.unfold(2, 8, 8).unfold(3, 8, 8).mean((4, 5)) > 0.1
        return torch.nn.functional.pad(patches.flatten(2).transpose(1, 2).float(), (0, TOKEN_SIZE - 8))


def test_every_token_is_asked_for_the_object_in_its_patch_however_the_picture_is_turned():
    drawn = shapes.draw(3, 16)
    labels, objects = torch.from_numpy(drawn.labels), torch.from_numpy(drawn.object_masks)
    images = torch.nn.functional.one_hot(labels, 8)[:, :, None, None] * objects[:, None].float()
    asked = TokenLoss(TellingTokens(), 8)
    with torch.no_grad():
        asked.objects_of_tokens.weight.copy_(100 * torch.eye(9, TOKEN_SIZE))
        asked.objects_of_tokens.bias.copy_(torch.tensor([0.0] * 8 + [50.0]))  # where no object is
    torch.manual_seed(0)
    for _ in range(12):  # each of the eight positions, all but surely
        assert asked(images, labels, objects).item() == pytest.approx(math.log(8), abs=1e-5)  # the picture's loss alone
    assert asked(images, labels.roll(1), objects).item() > 10


def test_a_square_has_eight_positions():
    picture = torch.arange(9.0).reshape(1, 1, 3, 3)
    torch.manual_seed(0)
    found = [turn(picture, picture[:, 0]) for _ in range(100)]
    assert all(torch.equal(image[:, 0], objects) for image, objects in found)
    assert len({tuple(image.flatten().tolist()) for image, _ in found}) == 8


def test_the_command_line_says_how_many_epochs(training, tmp_path, monkeypatch):
    recipes = []
    monkeypatch.setattr(training, "train", lambda recipe, seed: recipes.append(recipe) or training.ShapesNetwork(8))  # noqa: ARG005
    monkeypatch.setattr(training, "TEST_PICTURES", 2)
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)  # noqa: ARG005  # of the other tests too
    for epochs in ([], ["--epochs", "3"]):
        arguments = ["train_demo_model.py", "--variant", "transformer", "--only", "train", *epochs, "-o", str(tmp_path)]
        monkeypatch.setattr("sys.argv", arguments)
        training.main()
    assert [recipe.epochs for recipe in recipes] == [training.RECIPES["transformer"].epochs, 3]


@pytest.mark.slow
def test_attention_alone_takes_a_mask(training, tmp_path):
    import masktool

    network = training.train(dataclasses.replace(training.RECIPES["transformer"], **BRIEF), seed=0)
    training.save_program(network, tmp_path / "network.pt2")
    parity = masktool.export(tmp_path / "network.pt2", tmp_path / "masked.onnx").metadata.parity
    assert parity["invariance"] == 0
    assert parity["ones"] <= 1e-5
    assert parity["response"] > 0.01


@pytest.mark.slow
def test_attention_behind_convolutions_takes_a_mask_and_leaves_those_as_they_are(training, tmp_path):
    import masktool
    from masktool.demo import program_path

    network = training.train(dataclasses.replace(training.RECIPES["hybrid"], **BRIEF), seed=0)
    before = torch.export.load(program_path()).state_dict
    stages = {name.removeprefix("embedding.0."): value for name, value in network.state_dict().items()}
    kept = {"stem": "0", "blocks": "1"}
    for name, value in before.items():
        part, _, rest = name.partition(".")
        if part in kept:
            assert torch.equal(stages[f"{kept[part]}.{rest}"], value)
    training.save_program(network, tmp_path / "network.pt2")
    parity = masktool.export(tmp_path / "network.pt2", tmp_path / "masked.onnx").metadata.parity
    assert parity["invariance"] == 0
    assert parity["ones"] <= 1e-5
    assert parity["response"] > 0.01


@pytest.mark.slow
def test_bottlenecks_stride_in_narrow_convolutions_and_take_a_mask_by_both_rules(training, tmp_path):
    import masktool

    network = training.train(dataclasses.replace(training.RECIPES["bottleneck"], **BRIEF), seed=0)
    strided = [each for each in network.modules() if isinstance(each, torch.nn.Conv2d) and each.stride == (2, 2)]
    assert [each.kernel_size for each in strided] == [(3, 3), *[(1, 1)] * 4]  # the stem; branch and shortcut, twice
    training.save_program(network, tmp_path / "network.pt2")
    kept = (np.random.default_rng(0).random((1, 1, 32, 32)) < 0.1).astype(np.float32).repeat(2, 2).repeat(2, 3)
    logits = []
    for rule in ("published", "cell"):
        path = tmp_path / f"{rule}.onnx"
        parity = masktool.export(tmp_path / "network.pt2", path, rule=rule, input_size=(64, 64)).metadata.parity
        assert parity["invariance"] == 0
        assert parity["ones"] <= 1e-5
        with masktool.load(path, "cpu", threads=1) as session:
            image = training.normalise(shapes.draw(1, 1).images).numpy()
            logits.append(session(image, kept)[0])
    assert np.abs(logits[0] - logits[1]).max() > 1e-3  # of logits of .05
