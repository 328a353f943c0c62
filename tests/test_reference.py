"""The reference itself: against the published implementation's outputs, and against cases worked out by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from reference import windows
from reference.fill import FILL_EPSILON, neighbor_fill
from reference.golden_network import load_golden_network
from reference.layer_masking import MaskedReference, masked_forward
from reference.masks import binary_masks, soft_masks
from torch import Tensor, nn

from benchmarks.random_weights import cloudy_images, draw_weights

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")  # inside torch.export
GOLDEN_TOLERANCE = 1e-6
"""Absolute, on logits of at most 0.65: float32 rounding in another order."""
ONES_TOLERANCE = 1e-5
"""Absolute, on logits of about 1."""
SIZE = (24, 20)


class Everything(nn.Module):
    """A small network with one of everything that the rules know."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, (5, 3), 2, padding=(3, 1)), nn.BatchNorm2d(8), nn.SiLU())
        self.dilated = nn.Sequential(nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=4), nn.Hardswish())
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1), nn.Hardsigmoid())
        self.pool = nn.Sequential(nn.AvgPool2d(3, 2, 1, ceil_mode=True), nn.ReLU6(), nn.Dropout())
        self.fc = nn.Sequential(nn.Flatten(), nn.Linear(32 * 2 * 2, 7), nn.Softmax(1))

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image)
        x = torch.sigmoid(x * self.gate(x) + self.dilated(x)) - 0.25
        left, right = F.pad(x[:, :, 1:], (0, 0, 0, 0, 4, 4)).chunk(2, 1)
        x = torch.cat([self.pool(left), F.max_pool2d(right, 3, 2, 1, ceil_mode=True), self.pool(2 * right)], 1)
        x = torch.cat([x, -x.clamp(max=0.1)[:, :8]], 1)
        x = x.view(x.shape[0], 4, 8, *x.shape[-2:]).transpose(1, 2).flatten(1, 2)
        return self.fc(F.adaptive_avg_pool2d(x, 2))


@pytest.fixture(scope="module")
def everything() -> nn.Module:
    return draw_weights(Everything(), torch.Generator().manual_seed(0), SIZE)


def test_published_implementation_is_reproduced_on_all_masks(data_dir: Path):
    golden = np.load(data_dir / "golden" / "tiny_resnet_layer_masking.npz")
    network = load_golden_network(data_dir / "golden" / "tiny_resnet.onnx")
    image = torch.from_numpy(golden["image"])
    logits = masked_forward(network, image, torch.from_numpy(golden["mask"]))
    assert np.abs(logits.numpy() - golden["logits_layer_masking"]).max() <= GOLDEN_TOLERANCE
    assert np.abs(network(image).detach().numpy() - golden["logits_unmasked"]).max() <= GOLDEN_TOLERANCE


def test_ones_mask_is_the_original_network(everything):
    image = cloudy_images(3, SIZE, torch.Generator().manual_seed(1))
    masked = masked_forward(everything, image, torch.ones(1, 1, *SIZE))
    assert (masked - everything(image)).abs().max() <= ONES_TOLERANCE


def test_value_under_a_zero_never_matters(everything):
    generator = torch.Generator().manual_seed(2)
    image = cloudy_images(1, SIZE, generator)
    masks = torch.cat([binary_masks(SIZE, generator), soft_masks(SIZE, generator)])
    reference = MaskedReference(everything, image, len(masks))
    poisoned = torch.where(masks == 0, torch.tensor([torch.nan, torch.inf, -1e30]).view(1, 3, 1, 1), image)
    assert torch.equal(reference(poisoned, masks), reference(image, masks))


def test_empty_mask_leaves_the_classifiers_bias(everything):
    logits = masked_forward(
        everything, cloudy_images(1, SIZE, torch.Generator().manual_seed(3)), torch.zeros(1, 1, *SIZE)
    )
    assert torch.equal(logits[0], everything.fc[1].bias.softmax(0))


def test_operator_without_a_rule_raises():
    network = nn.Sequential(nn.Conv2d(3, 3, 3), nn.LPPool2d(2, 2), nn.Flatten())
    with pytest.raises(NotImplementedError, match="no mask rule for aten"):
        masked_forward(network.eval(), torch.ones(1, 3, 8, 8), torch.ones(1, 1, 8, 8))


def test_output_with_height_and_width_raises():
    with pytest.raises(NotImplementedError, match="height and width"):
        masked_forward(nn.Conv2d(3, 3, 3), torch.ones(1, 3, 8, 8), torch.ones(1, 1, 8, 8))


@pytest.mark.parametrize(
    ("value", "mask", "rounds", "expected"),
    [
        ([2, 9, 9, 9], [1, 0, 0, 0], 1, [2, 2, 0, 0]),
        ([2, 9, 9, 9], [1, 0, 0, 0], 2, [2, 2, 2, 0]),
        ([2, 9, 9, 9], [1, 0, 0, 0], 3, [2, 2, 2, 2]),
        ([1, 9, 3], [1, 0, 1], 1, [1, 2, 3]),
        ([6, 9, 9, 0], [1, 0, 0, 1], 1, [6, 6, 0, 0]),
        ([9, 9], [0, 0], 2, [0, 0]),
        ([4, 8], [0.5, 1], 1, [4 * 0.5 + 0.5 * (4 * 0.5 + 8) / 1.5, 8]),
        ([4, 9, 9], [0.5, 0, 0], 1, [4 * 0.5 + 0.5 * 4, 4, 0]),
        ([5, 5], [1, 1], 0, [5, 5]),
    ],
)
def test_fill_of_a_row_worked_out_by_hand(value, mask, rounds, expected):
    row, row_mask = torch.tensor([value, mask], dtype=torch.float64).view(2, 1, 1, 1, -1)
    filled = neighbor_fill(row, row_mask, rounds).flatten().tolist()
    assert filled == pytest.approx(
        expected, rel=2 * rounds * FILL_EPSILON
    )  # each round shrinks by ε / (ε + at least .5)


def test_fill_carries_the_epsilon():
    row, mask = torch.tensor([[2.0, 0.0, 0.0], [1.0, 0.0, 0.0]], dtype=torch.float64).view(2, 1, 1, 1, -1)
    shrunk = 2 / (1 + FILL_EPSILON)
    # in the second round the first missing position is known and has the value 2 / (1 + ε)
    assert neighbor_fill(row, mask, 2).flatten().tolist() == pytest.approx(
        [2, shrunk, shrunk / (1 + FILL_EPSILON)], rel=1e-12
    )


@pytest.mark.parametrize("kernel", [3, 5, 7])
def test_one_round_less_than_the_kernel_is_enough_and_two_less_are_not(kernel, monkeypatch):
    generator = torch.Generator().manual_seed(4)
    image, masks = cloudy_images(1, (40, 40), generator), binary_masks((40, 40), generator)
    network = nn.Sequential(nn.Conv2d(3, 4, kernel, stride=2, padding=kernel // 2), nn.Flatten())
    logits = masked_forward(network, image, masks)
    monkeypatch.setattr(windows, "neighbor_fill", lambda x, m, rounds: neighbor_fill(x, m, rounds + 1))
    assert torch.equal(masked_forward(network, image, masks), logits)
    monkeypatch.setattr(windows, "neighbor_fill", lambda x, m, rounds: neighbor_fill(x, m, rounds - 1))
    assert not torch.allclose(masked_forward(network, image, masks), logits, atol=1e-3)


def run_row(network: nn.Module, value: list[float], mask: list[float], rule: str = "published") -> list[float]:
    """Runs a network on one row of pixels, (1, 1, 1, W), in float64."""
    row, row_mask = torch.tensor([value, mask], dtype=torch.float64).view(2, 1, 1, 1, -1)
    return masked_forward(nn.Sequential(network, nn.Flatten()).double().eval(), row, row_mask, rule).flatten().tolist()


def box_conv(width: int, **options: int) -> nn.Conv2d:
    """Builds a convolution that adds up ``width`` pixels of a row and 10."""
    conv = nn.Conv2d(1, 1, (1, width), **options)
    nn.init.ones_(conv.weight)
    nn.init.constant_(conv.bias, 10)
    return conv


def test_convolution_widens_the_mask_by_its_window():
    # filled to 1 1 1 3 5 5; the third of the four windows sees nothing that is kept
    assert run_row(box_conv(3), [1, 1, 9, 9, 9, 5], [1, 1, 0, 0, 0, 1]) == pytest.approx([13, 15, 0, 23], rel=1e-4)


def test_convolution_reaches_as_far_as_its_dilation():
    # pixels 0 2 4, 1 3 5, 2 4 6: the last window sees nothing that is kept
    assert run_row(box_conv(3, dilation=2), [1, 2, 9, 9, 9, 9, 9], [1, 1, 0, 0, 0, 0, 0]) == pytest.approx(
        [15, 16, 0], rel=1e-4
    )


def test_pointwise_convolution_does_not_fill():
    assert run_row(box_conv(1), [3, 9, 4], [1, 0, 1]) == [13, 0, 14]


def test_max_pool_sees_kept_positions_only():
    pool = nn.MaxPool2d((1, 2))
    assert run_row(pool, [-3, 9, -5, -4, 9, 9], [1, 0, 1, 1, 0, 0]) == [-3, -4, 0]


@pytest.mark.parametrize(("count_include_pad", "first"), [(True, 2), (False, 4)])
def test_average_pool_keeps_the_originals_padding_rule(count_include_pad, first):
    # windows [pad 4], [9 2], [9 9]; the first divides by 2 when padding counts
    pool = nn.AvgPool2d((1, 2), padding=(0, 1), count_include_pad=count_include_pad)
    assert run_row(pool, [4, 9, 2, 9, 9], [1, 0, 1, 0, 0]) == [first, 2, 0]


def test_average_pool_weighs_by_a_soft_mask():
    pool = nn.Sequential(nn.AvgPool2d((1, 2)), nn.AdaptiveAvgPool2d(1))
    # window means (4·1 + 8·.5) / 1.5 and 3, then the mean of both under the masks 1 and .25
    assert run_row(pool, [4, 8, 3, 9], [1, 0.5, 0.25, 0]) == pytest.approx([(16 / 3 + 3 * 0.25) / 1.25])


class Join(nn.Module):
    """Joins a row with itself under the mask widened by one pixel to each side."""

    def __init__(self, op) -> None:
        super().__init__()
        self.op = op
        self.widen = nn.MaxPool2d((1, 3), 1, (0, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x, self.widen(x))


@pytest.mark.parametrize(
    ("op", "expected"),
    [
        (torch.add, [4, 0, 0, 0]),
        (torch.mul, [4, 0, 0, 0]),
        (lambda x, y: torch.cat([x, y], 1).add(1), [3, 1, 0, 0, 3, 3, 0, 0]),
    ],
)
def test_joins_take_the_smaller_mask_and_concatenation_the_union(op, expected):
    assert run_row(Join(op), [2, 9, 9, 9], [1, 0, 0, 0]) == expected


def test_strided_slice_takes_the_mask_along():
    class Shortcut(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.pad(x[:, :, ::2, 1::2], (0, 0, 0, 0, 1, 0)) + 1

    assert run_row(Shortcut(), [1, 2, 3, 4, 5, 6], [0, 1, 1, 0, 0, 1]) == [1, 0, 1, 3, 0, 7]


class Steps(nn.Module):
    """Every so-many-th pixel of a row, and 1."""

    def __init__(self, start: int, step: int) -> None:
        super().__init__()
        self.start, self.step = start, step

    def forward(self, x: Tensor) -> Tensor:
        return x[..., self.start :: self.step] + 1


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (box_conv(1, stride=(1, 2)), [15, 0, 17]),  # cells _5 __ 7_, whose first pixels are filled to 5, nothing, 7
        (nn.MaxPool2d(1, (1, 2)), [5, 0, 7]),
        (nn.AvgPool2d(1, (1, 2)), [5, 0, 7]),
        (Steps(0, 2), [6, 0, 8]),
        (Steps(1, 2), [6, 0, 8]),
        (box_conv(1, stride=(1, 3)), [15, 17]),  # cells _5_ _7_
        (box_conv(2, stride=(1, 3)), [20, 24]),
        (nn.MaxPool2d((1, 2), (1, 3)), [5, 7]),
        (Steps(2, 3), [6, 8]),
        (box_conv(2, stride=(1, 2)), [20, 0, 24]),  # as wide as its stride: the same under the published rule
    ],
)
def test_what_is_narrower_than_its_stride_keeps_its_cell(network, expected):
    assert run_row(network, [9, 5, 9, 9, 7, 9], [0, 1, 0, 0, 1, 0], "cell") == pytest.approx(expected, rel=1e-4)


class Function(nn.Module):
    """A function of a map as a network."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def run_function(function, value: list[float], mask: list[float]) -> list[float]:
    return run_row(Function(function), value, mask)


def test_reductions_see_kept_positions_and_count_all():
    value, mask = [3, 9, -4, 9], [1, 0, 1, 0]
    assert run_function(lambda x: x.mean((2, 3)), value, mask) == [-0.5]
    assert run_function(lambda x: x.sum((2, 3)), value, mask) == [-2]  # (3 − 4) · 4 / 2
    assert run_function(lambda x: x.amax((2, 3)), [-3, 9, -4, 9], mask) == [-3]
    # √(3² + 4²) · √4 / √2
    assert run_function(lambda x: torch.linalg.vector_norm(x, 2, (2, 3)), value, mask) == pytest.approx([50**0.5])
    assert run_function(lambda x: x.amax((2, 3)), [1, 1], [0, 0]) == [0]


def test_norm_over_space_takes_its_statistics_from_kept_positions():
    norm = nn.InstanceNorm2d(1, eps=0)
    # of 1 and 5: mean 3, deviation 2
    assert run_row(norm, [1, 9, 5, 9], [1, 0, 1, 0]) == [-1, 0, 1, 0]
    assert run_row(nn.GroupNorm(1, 1, eps=0, affine=False), [1, 9, 5, 9], [1, 0, 1, 0]) == [-1, 0, 1, 0]
    assert run_row(nn.LayerNorm((1, 4), eps=0, elementwise_affine=False), [1, 9, 5, 9], [1, 0, 1, 0]) == [-1, 0, 1, 0]


def test_norm_is_the_same_written_out():
    def written_out(x: Tensor) -> Tensor:
        centered = x - x.mean((2, 3), keepdim=True)
        return centered / (centered * centered).mean((2, 3), keepdim=True).sqrt()

    value, mask = [1, 9, 5, 2], [1, 0, 0.25, 0.5]
    assert run_function(written_out, value, mask) == pytest.approx(run_row(nn.InstanceNorm2d(1, eps=0), value, mask))


def test_linear_interpolation_takes_the_mean_of_kept_positions():
    def double(x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=(1, 2), mode="bilinear")

    # weights ¾ and ¼ inside; what touches no kept position is missing
    assert run_function(double, [4, 8, 9, 9], [1, 1, 0, 0]) == pytest.approx([4, 5, 7, 8, 8, 0, 0, 0])


def test_nearest_resize_copies_positions_with_their_mask():
    assert run_function(lambda x: F.interpolate(x, scale_factor=(1, 2)) + 1, [4, 8], [1, 0]) == [5, 5, 0, 0]


def test_zeros_padded_before_a_convolution_are_its_padding():
    # the missing middle is filled with 2, the padding stays 0
    padded = nn.Sequential(nn.ZeroPad2d((1, 1, 0, 0)), box_conv(3))
    assert run_row(padded, [2, 9, 2], [1, 0, 1]) == pytest.approx([14, 16, 14], rel=1e-4)
    assert run_row(padded, [2, 9, 2], [1, 0, 1]) == run_row(box_conv(3, padding=(0, 1)), [2, 9, 2], [1, 0, 1])


def test_missing_token_gets_no_weight_and_gives_none():
    def attend(x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        return F.scaled_dot_product_attention(tokens, tokens, tokens, scale=1.0).transpose(1, 2) + 1

    first, second = (torch.tensor([1.0, 2.0], dtype=torch.float64) * query for query in (1, 2))
    expected = [float((weights.softmax(0) * torch.tensor([1.0, 2.0])).sum()) + 1 for weights in (first, second)]
    assert run_function(attend, [1, 9, 2], [1, 0, 1]) == pytest.approx([expected[0], 0, expected[1]])


def test_class_token_is_always_kept():
    def first_token(x: Tensor) -> Tensor:
        tokens = torch.cat([torch.ones(1, 1, 1, dtype=x.dtype), x.flatten(2).transpose(1, 2)], 1)
        return F.scaled_dot_product_attention(tokens, tokens, tokens)[:, 0]

    assert run_function(first_token, [7, 9], [0, 0]) == [1]
    assert run_function(first_token, [3, 9], [1, 0]) == pytest.approx([(np.e + 3 * np.e**3) / (np.e + np.e**3)])


def test_rolled_tokens_take_their_mask_along():
    assert run_function(lambda x: torch.roll(x, 1, 3) + 1, [1, 2, 3], [1, 0, 1]) == [4, 2, 0]
