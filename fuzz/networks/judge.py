"""Exports a random network and compares it with the independent rules: exact, refused or wrong."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime
import torch
from torch import Tensor

import masktool
from fuzz.networks.drawing import has_narrow_samplers
from fuzz.networks.program import Program
from fuzz.networks.reference import run_reference
from fuzz.networks.writer import write_program
from masktool.contract import GRADIENT_PREFIX, TARGET_INPUT, SamplerRule
from masktool.errors import MasktoolError, describe_exception

TOLERANCE = 2e-5
"""Relative to max |output| under the same mask: float32 against float64."""
OWN_ROUNDINGS = 2
"""Times how far the network without a mask is from float64: of 20,000, one rounds by more than ``TOLERANCE`` itself (a
norm over a nearly flat map, 5.1e-5)."""
SOFT_TOLERANCE = 2e-4
"""Soft masks divide by small sums."""
GRADIENT_TOLERANCE = 2e-3
"""Relative, of a directional derivative in float32 against central differences in float64."""
STEP = 1e-6
"""Of the central differences; float64 has ten digits left."""
SMALLEST_SLOPE = 1e-3
"""Of the gradient's length times the direction's: smaller derivatives cancel, and what is left is float32's rounding of
the gradient, about 2e-5 of its largest number."""
FLATTEST = 2e-4
"""Of the largest logit: along a flatter direction, as behind a norm and a mean that undo each other, the tolerance is
four roundings of the logits in float32, though every pixel of the image moves."""
BLOCK = 4
"""Pixels a side of the blocks that masks keep or leave out."""
SPECKS = 0.1
"""Share of the pixels that a mask of specks keeps: most places that a sampler looks at are then missing."""
Verdict = Literal["exact", "refused", "wrong"]


@dataclasses.dataclass(frozen=True)
class Judgement:
    """What became of one network.

    Attributes:
        verdict: exact, refused by a MasktoolError, or wrong: any other exception, or other numbers than the rules give.
        reason: of a refusal or a fault; empty where exact.
        worst: largest relative difference over outputs and masks; 0 where nothing was compared.
        gradient: whether gradients were compared too.
    """

    verdict: Verdict
    reason: str = ""
    worst: float = 0.0
    gradient: bool = False


def judge_network(program: Program, *, gradient: bool = False) -> Judgement:
    """Exports a network in a temporary directory and judges the file, run by ONNX Runtime without optimisations.

    A network with samplers narrower than their stride is judged under both of their rules; the first judgement that is
    not exact counts, else the one with the largest difference.

    Args:
        program: the network.
        gradient: exports gradients too, and holds one of the image to central differences.
    """
    rules: tuple[SamplerRule, ...] = ("cell", "published") if has_narrow_samplers(program) else ("published",)
    judgements = []
    for rule in rules:
        judgements.append(judge_under(rule, program, gradient=gradient))
        if judgements[-1].verdict != "exact":
            reason = f"{rule} rule: {judgements[-1].reason}"
            return dataclasses.replace(judgements[-1], reason=reason)
    return max(judgements, key=lambda each: each.worst)


def judge_under(rule: SamplerRule, program: Program, *, gradient: bool = False) -> Judgement:
    """Judges a network's file under one rule; see :func:`judge_network`."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as directory:
        path = Path(directory) / "masked.onnx"
        options = {"gradient": "logit", "output_kind": output_kind(program)} if gradient else {}
        try:
            masktool.export(write_program(program), path, rule=rule, **options)  # type: ignore[arg-type]
        except MasktoolError as error:
            return Judgement("refused", str(error))
        except Exception as error:  # this is what is looked for
            return Judgement("wrong", f"export raises {describe_exception(error)}")
        try:
            session = open_plainly(path)
            findings = list(compare_outputs(program, session, rule, gradient=gradient))
            if gradient:
                findings += list(compare_gradient(program, session, rule))
        except Exception as error:  # likewise
            return Judgement("wrong", f"the file does not run: {describe_exception(error)}")
    worst = max(figure / limit for _, figure, limit in findings)
    wrong = [f"{name} {figure:.1e}" for name, figure, limit in findings if not figure <= limit]
    largest = max(figure for _, figure, _ in findings)
    return Judgement("wrong" if wrong or not np.isfinite(worst) else "exact", ", ".join(wrong), largest, gradient)


def output_kind(program: Program) -> str:
    """Returns what the scores are."""
    return "probabilities" if program.instructions[-1].operation == "softmax" else "logits"


def open_plainly(model: Path | bytes) -> onnxruntime.InferenceSession:
    """Opens a file, or its bytes, without any of ONNX Runtime's optimisations, on one thread."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    given = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])


def draw_image(program: Program) -> Tensor:
    """Returns one image (1, C, H, W), float64, whose numbers float32 holds too."""
    generator = torch.Generator().manual_seed(program.seed + 1)
    return torch.randn(1, *program.image_shape, generator=generator).double()


def draw_masks(program: Program) -> dict[str, Tensor]:
    """Returns masks (1, 1, H, W) by name: ones, blocks, one corner, specks, nothing, and a soft one."""
    generator = torch.Generator().manual_seed(program.seed + 2)
    height, width = program.image_shape[1:]
    cells = torch.rand(1, 1, -(-height // BLOCK), -(-width // BLOCK), generator=generator)
    blocks = (cells < 0.6).repeat_interleave(BLOCK, 2).repeat_interleave(BLOCK, 3)[:, :, :height, :width].double()
    corner = torch.zeros(1, 1, height, width).double()
    corner[:, :, : height // 2, : width // 3] = 1
    specks = (torch.rand(1, 1, height, width, generator=generator) < SPECKS).double()
    ramp = torch.linspace(-0.3, 1, width).clamp(0, 1).expand(1, 1, height, width).double()
    return {
        "ones": torch.ones_like(corner),
        "blocks": blocks,
        "corner": corner,
        "specks": specks,
        "nothing": torch.zeros_like(corner),
        "soft": ramp.float().double(),
    }


def feed(program: Program, image: Tensor, mask: Tensor, *, gradient: bool) -> dict[str, np.ndarray]:
    """Returns what the exported file takes."""
    array = image.float().numpy()
    values = {"image": array.transpose(0, 2, 3, 1) if program.dialect.channels_last else array}
    values["image"] = np.ascontiguousarray(values["image"])
    values["mask"] = mask.float().numpy()
    return values | ({TARGET_INPUT: np.array([1], np.int64)} if gradient else {})


def compare_outputs(
    program: Program, session: onnxruntime.InferenceSession, rule: SamplerRule, *, gradient: bool
) -> Iterator[tuple[str, float, float]]:
    """Yields, for every mask and output, a name, the relative difference, and what it may be."""
    image, names = draw_image(program), list(program.outputs)
    rounding = OWN_ROUNDINGS * own_rounding(program, image)
    for label, mask in draw_masks(program).items():
        found = session.run(names, feed(program, image, mask, gradient=gradient))
        expected = run_reference(program, image, None if label == "ones" else mask, rule)
        for name, one, other in zip(names, found, expected, strict=True):
            limit = max(SOFT_TOLERANCE if label == "soft" else TOLERANCE, rounding)
            yield f"{name} under {label}", relative(one, other), limit


def own_rounding(program: Program, image: Tensor) -> float:
    """Returns how far the network itself, without a mask, is from float64 in ONNX Runtime's float32."""
    source = open_plainly(write_program(program).SerializeToString())
    values = feed(program, image, torch.ones(1, 1, *program.image_shape[1:]), gradient=False)
    found = source.run(list(program.outputs), {"image": values["image"]})
    return max(relative(one, other) for one, other in zip(found, run_reference(program, image, None), strict=True))


def relative(found: np.ndarray, expected: Tensor) -> float:
    """Returns max |a − b| / max |b|, infinity where shapes differ or numbers are not finite."""
    if found.shape != tuple(expected.shape):
        return float("inf")
    difference = np.abs(found.astype(np.float64) - expected.numpy()).max(initial=0)
    scale = expected.abs().max().item() if expected.numel() else 0.0
    figure = float(difference / scale) if scale > 0 else float(difference)
    return figure if np.isfinite(figure) else float("inf")


def compare_gradient(
    program: Program, session: onnxruntime.InferenceSession, rule: SamplerRule
) -> Iterator[tuple[str, float, float]]:
    """Yields how far the gradient of a logit, along a random direction, is from central differences.

    Where two step sizes disagree, the direction crosses a kink of the network, and nothing is said.
    """
    image = draw_image(program)
    direction = torch.randn(image.shape, generator=torch.Generator().manual_seed(program.seed + 3)).double()
    for label, mask in draw_masks(program).items():
        if label not in ("ones", "blocks"):
            continue
        values = feed(program, image, mask, gradient=True)
        (found,) = session.run([GRADIENT_PREFIX + "image"], values)
        found = found.astype(np.float64)
        found = found.transpose(0, 3, 1, 2) if program.dialect.channels_last else found
        slope = float((found * direction.numpy()).sum())
        wide, narrow = (central_difference(program, image, mask, rule, direction, step) for step in (STEP, STEP / 4))
        least = SMALLEST_SLOPE * float(np.linalg.norm(found) * direction.norm())
        scale = max(abs(narrow), least, FLATTEST * float(logits(program, image, mask, rule).abs().max()))
        if scale > 0 and abs(wide - narrow) <= GRADIENT_TOLERANCE / 4 * scale:
            yield f"gradient under {label}", abs(slope - narrow) / scale, GRADIENT_TOLERANCE


def central_difference(
    program: Program, image: Tensor, mask: Tensor, rule: SamplerRule, direction: Tensor, step: float
) -> float:
    """Returns the derivative of the second class's logit along a direction."""
    ahead, behind = (logits(program, image + sign * step * direction, mask, rule)[1].item() for sign in (1, -1))
    return (ahead - behind) / (2 * step)


def logits(program: Program, image: Tensor, mask: Tensor, rule: SamplerRule) -> Tensor:
    """Returns the scores (K,) of one image by the rules; before the softmax, where there is one."""
    if output_kind(program) == "probabilities":
        last = program.instructions[-1].inputs[0]
        program = dataclasses.replace(program, outputs={"scores": last})
    return run_reference(program, image, mask, rule)[0][0]
