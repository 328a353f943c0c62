"""Exports torch modules to plain ONNX graphs by torch's dynamo exporter, whose messages stay off stdout and stderr."""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import io
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import onnx_ir

from masktool.contract import Size
from masktool.errors import MasktoolError, first_line
from masktool.exporters.batch import run_image_by_image
from masktool.layouts import FROM_CHANNELS_FIRST, RANKS, layouts_of_rank
from masktool.messages import differently, parameter

if TYPE_CHECKING:
    import torch

OPSET = 20
EXAMPLE_BATCH = 2
"""torch.export takes a dimension of length 1 for a constant, so the example holds two images."""
RGB = 3
IMAGE_NAME = "image"
OUTPUT_NAME = "logits"
EXPORT_FIRST = "export it to ONNX first, with torch.onnx.export, and give masktool the .onnx file"
TORCH_FIX = "pip install 'masktool[torch]'"


class TorchGraph(NamedTuple):
    """A graph exported from torch, torch's own answer (images (N, C, H, W) -> every output, in graph order), and what
    the user should be told.
    """

    model: onnx_ir.Model
    run: Callable[[np.ndarray], list[np.ndarray]]
    notes: tuple[str, ...] = ()


def require_torch(needed_for: str) -> None:
    """Raises MasktoolError with the install command when torch is not installed."""
    if importlib.util.find_spec("torch") is None:
        raise MasktoolError("torch is not installed, which " + needed_for + " needs", fix=TORCH_FIX)


def is_module(model: object) -> bool:
    """Tells whether an object is a torch module, without importing torch: whoever made one has it imported already."""
    torch_module = sys.modules.get("torch")
    return torch_module is not None and isinstance(model, torch_module.nn.Module)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps prints, warnings and log lines of torch and the hubs off stdout and stderr."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


@contextlib.contextmanager
def evaluation_mode(module: torch.nn.Module) -> Iterator[None]:
    """Puts a module and all it holds into evaluation mode, and each part back into the mode it was in."""
    training = [part for part in module.modules() if getattr(part, "training", False)]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


def export_module(
    module: torch.nn.Module, input_size: Size, channels: int | None = None, configured: int | None = None
) -> TorchGraph:
    """Exports a module with a symbolic batch; the module keeps its training mode.

    Args:
        module: a module that takes images (N, C, H, W) and gives a tensor, or a tuple or mapping that holds tensors.
        input_size: (height, width) of the images in pixels.
        channels: the number of channels of the images; None finds it, see :func:`find_channels`.
        configured: the number of channels that the module's hub says; None where it says none.

    Raises:
        MasktoolError: the module does not run on such images, or torch cannot export it.
    """
    import torch

    channels, notes = (channels, ()) if channels is not None else find_channels(module, input_size, configured)
    example = make_example(module, input_size, channels)
    with evaluation_mode(module):
        outputs = run_once(module, example)
        names = list(flatten_outputs(outputs))
        program = export_quietly(
            module if isinstance(outputs, torch.Tensor) and takes_one_image(module) else wrap_module(module),
            (example,),
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            input_names=[IMAGE_NAME],
            output_names=names,
        )
    return with_reference(program.model, in_evaluation_mode(module), example)._replace(notes=notes)


def export_quietly(model: Any, arguments: tuple[Any, ...] | None = None, **options: Any) -> Any:
    """Runs the dynamo exporter and returns its ONNXProgram; MasktoolError, in one line, where it fails."""
    import torch

    try:
        with quiet(), torch.no_grad():
            return torch.onnx.export(
                model,
                *(() if arguments is None else (arguments,)),
                dynamo=True,
                opset_version=OPSET,
                verbose=False,
                **options,
            )
    except Exception as error:  # the exporter wraps whatever the model's code or its own passes raise
        raise MasktoolError(
            "torch cannot export the model to ONNX",
            got=first_line(root_cause(error)),
            fix="export it to .onnx by other means; "
            + differently(python="the causes of this error tell", command="--debug shows")
            + " the whole reason",
        ) from error


def root_cause(error: BaseException) -> BaseException:
    """Returns the exception at the end of an exception's chain of causes."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def make_example(module: torch.nn.Module, input_size: Size, channels: int) -> torch.Tensor:
    """Returns random images (2, C, H, W) of the module's element type, on its device."""
    import torch

    weight = next((parameter for parameter in module.parameters() if parameter.is_floating_point()), None)
    generator = torch.Generator().manual_seed(0)
    shape = (EXAMPLE_BATCH, channels, *input_size)
    example = torch.randn(shape, generator=generator)
    return example if weight is None else example.to(device=weight.device, dtype=weight.dtype)


def find_channels(
    module: torch.nn.Module, input_size: Size, configured: int | None = None
) -> tuple[int, tuple[str, ...]]:
    """Returns the number of channels of the images that a module takes, and notes on it for the user.

    A first convolution tells no more than what reaches it: stems that rearrange the image (space to depth) hand it
    more channels than the image has. So the module is run on images of 3 channels, or as many as its hub says, and of
    as many as the first convolution takes; where both run, the former are taken and the note says so.

    Args:
        module: a module that takes images (N, C, H, W).
        input_size: (height, width) of the images to try, in pixels.
        configured: the number of channels that the module's hub says; None where it says none.
    """
    likely, first = configured or RGB, count_channels(module)
    if likely == first:
        return likely, ()
    with evaluation_mode(module):
        running = [count for count in (likely, first) if runs_on(module, make_example(module, input_size, count))]
    if len(running) != 2 or configured is not None:
        return (running or [likely])[0], ()
    note = f"the model runs on images of {likely} channels and of {first}; {likely} taken, "
    return likely, (note + parameter("channels") + " chooses",)


def runs_on(module: Callable[..., Any], example: torch.Tensor) -> bool:
    """Tells whether a module runs on example images."""
    try:
        run_quietly(module, example)
    except Exception:  # the model's own code may raise anything
        return False
    return True


def count_channels(module: torch.nn.Module) -> int:
    """Returns the number of channels that a module's first convolution takes; 3 where it has no convolution."""
    import torch

    for part in module.modules():
        if isinstance(part, torch.nn.Conv1d | torch.nn.Conv2d | torch.nn.Conv3d):
            return part.in_channels
    kernel = next((parameter for parameter in module.parameters() if parameter.ndim in RANKS), None)
    return 3 if kernel is None else kernel.shape[1]


def run_once(module: Callable[..., Any], example: torch.Tensor) -> Any:
    """Runs a module on example images and returns its result.

    Raises:
        MasktoolError: the module fails, or gives no tensor.
    """
    try:
        outputs = run_quietly(module, example)
    except Exception as error:  # the model's own code may raise anything
        raise does_not_run(module, example, error) from error
    if not flatten_outputs(outputs):
        raise MasktoolError("the model gives no tensor", expected="class scores (N, K)", got=type(outputs).__name__)
    return outputs


def does_not_run(module: Callable[..., Any], example: torch.Tensor, error: Exception) -> MasktoolError:
    """Returns the error of a module that does not run on an image; its signature and another layout may tell why."""
    if needed := arguments_beside_image(module):
        return MasktoolError(
            "the model takes more than the image",
            where=type(module).__name__,
            expected="forward(image)",
            got=f"a forward that needs {', '.join(needed)} too",
            fix=EXPORT_FIRST,
        )
    first, last = layouts_of_rank(example.ndim)
    if runs_on(module, example.permute(FROM_CHANNELS_FIRST[last])):
        return MasktoolError(
            "the model takes images with the channels last",
            where=type(module).__name__,
            expected=f"({', '.join(first)})",
            got=f"({', '.join(last)})",
            fix=EXPORT_FIRST,
        )
    return MasktoolError(
        "the model does not run on an image",
        where=f"input {tuple(example.shape)}",
        got=first_line(error),
        fix="check " + parameter("input_size") + " and " + parameter("channels"),
    )


def arguments_beside_image(module: Callable[..., Any]) -> list[str]:
    """Returns the names of the arguments behind the first that a module's ``forward`` cannot do without."""
    try:
        parameters = list(inspect.signature(getattr(module, "forward", module)).parameters.values())
    except (TypeError, ValueError):  # compiled code need not have one
        return []
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [each for each in parameters if each.default is each.empty and each.kind not in variable]
    by_position = [each for each in needed if each.kind is not inspect.Parameter.KEYWORD_ONLY]
    return [each.name for each in needed if each not in by_position[:1]]


def run_quietly(module: Callable[..., Any], images: torch.Tensor) -> Any:
    """Runs a module without gradients, its warnings suppressed."""
    import torch

    with quiet(), torch.no_grad():
        return module(images)


def flatten_outputs(outputs: Any) -> dict[str, torch.Tensor]:
    """Returns the tensors in a module's result by name.

    A lone tensor is called ``logits``; several have a mapping's keys or are ``output_0``, ``output_1``. Anything but a
    tensor is left out: an auxiliary head that is off gives None.
    """
    import torch

    if isinstance(outputs, torch.Tensor):
        return {OUTPUT_NAME: outputs}
    if isinstance(outputs, Mapping):
        items = [(str(key), value) for key, value in outputs.items()]
    elif isinstance(outputs, tuple | list):
        fields = getattr(outputs, "_fields", None) or [f"output_{index}" for index in range(len(outputs))]
        items = list(zip(fields, outputs, strict=True))
    else:
        return {}
    tensors = {key: value for key, value in items if isinstance(value, torch.Tensor)}
    return {OUTPUT_NAME: next(iter(tensors.values()))} if len(tensors) == 1 else tensors


def takes_one_image(module: torch.nn.Module) -> bool:
    """Tells whether ``forward`` names its first argument, without which a dynamic batch cannot be asked for."""
    kinds = [parameter.kind for parameter in inspect.signature(module.forward).parameters.values()]
    return bool(kinds) and kinds[0] in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def wrap_module(module: torch.nn.Module) -> torch.nn.Module:
    """Returns a module that takes one image and gives the tensors of another module's result: one, or a flat tuple."""
    import torch

    class FlatOutputs(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wrapped = module

        def forward(self, image: torch.Tensor) -> Any:
            tensors = tuple(flatten_outputs(self.wrapped(image)).values())
            return tensors if len(tensors) > 1 else tensors[0]

    return FlatOutputs().eval()


def with_reference(model: onnx_ir.Model, call: Callable[..., Any], example: torch.Tensor) -> TorchGraph:
    """Joins a graph with the torch callable that it was exported from.

    Args:
        model: the graph; where its batch is fixed, the callable gets the images one by one.
        call: the callable, which takes images (N, C, H, W).
        example: a tensor of the element type and on the device that the callable takes.
    """
    import torch

    def run(images: np.ndarray) -> list[np.ndarray]:
        batch = torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32)).to(example)
        outputs = flatten_outputs(run_quietly(call, batch))
        return [tensor_to_array(tensor) for tensor in outputs.values()]

    image = model.graph.inputs[0]
    assert image.shape is not None  # torch's exporters write all shapes
    fixed = image.shape[0]
    if isinstance(fixed, int):
        return TorchGraph(model, lambda images: run_image_by_image(run, images, fixed))
    return TorchGraph(model, run)


def tensor_to_array(tensor: torch.Tensor) -> np.ndarray:
    """Returns a tensor as an array: floating point as float32, indices, counts and decisions in their own type."""
    array: np.ndarray = (tensor.float() if tensor.is_floating_point() else tensor).cpu().numpy()
    return array


def in_evaluation_mode(module: torch.nn.Module) -> Callable[[torch.Tensor], Any]:
    """Returns a function that runs a module in evaluation mode and then puts each part back into its own mode."""

    def call(images: torch.Tensor) -> Any:
        with evaluation_mode(module):
            return module(images)

    return call
