"""Opening any model as a session: :func:`load`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Unpack

from masktool.errors import MasktoolError
from masktool.exported_files import name_feature_maps
from masktool.interface.models import find_model
from masktool.interface.options import ExportOptions, ModelChoice, ModelLike, check_known, name_given
from masktool.progress import Say, log
from masktool.runtime.provider_habits import make_defaults_constant
from masktool.runtime.session import MaskedSession


def load(
    model: ModelLike | None = None,
    providers: str | Sequence[str] | None = None,
    threads: int | None = None,
    *,
    provider_options: Mapping[str, object] | None = None,
    gradient: bool = False,
    feature_map: str | Sequence[str] | None = None,
    head: str | None = None,
    gradient_output: str | None = None,
    say: Say = log,
    **options: Unpack[ExportOptions],
) -> MaskedSession:
    """Opens a model as a session; a model that takes no mask yet is exported into the cache, unless it is there.

    Args:
        model: the path of an exported file, or any other model: an ``.onnx``, a ``.pt2``, a state dict or
            ``.safetensors`` (with ``arch``), ``torchvision:NAME`` or ``timm:NAME``, a torch module or an ONNX model in
            memory. None takes ``$MASKTOOL_MODEL``, else the small built-in one. An open session is returned as it is.
        providers: ONNX Runtime's execution providers: ``auto`` (the default: the first of CUDA, MIGraphX, WebGPU and
            DirectML that really loads, else the CPU; :attr:`MaskedSession.announcement` says which and why), ``cpu``,
            ``cuda``, ``tensorrt``, ``webgpu``, ``directml``, ``migraphx`` (or ``rocm``), ``openvino``, ``coreml``, or a
            list of these or of ONNX Runtime's own provider names, every one of which must load. The CPU always stands
            behind them for nodes that they lack.
        threads: the number of threads that one node may use; None leaves it to ONNX Runtime. Threads share out the
            terms of sums, so only the same number of threads gives the same bytes.
        provider_options: options of the providers by ONNX Runtime's names, such as ``{"use_tf32": True}``; where
            several providers are named, each takes those that it has.
        gradient: whether the session must give gradients; a file that holds none gets them in the cache.
        feature_map: the name of the value (N, c, h, w) that the gradients are with respect to, besides image and mask,
            or several names; None takes the last one. Without gradients the file gives these activations alone, for
            ``last`` those of the last; a file that is masked already and does not gets them in the cache.
        head: the name of the feature map behind which the file's head must begin, or ``last`` for the last one that has
            one, see :func:`masktool.export`; a file that is masked already must have it. None needs none.
        gradient_output: the name of the output whose weighed values the gradients must be of, see
            :func:`masktool.export`; None leaves them to class scores, where ``gradient`` asks for any.
        say: function that is called with which file is used and why, a line at a time; by default it writes to the
            logger ``masktool`` (level INFO).
        **options: for a model that is not masked yet, the options of its export, see :class:`masktool.ExportOptions`.

    Raises:
        MasktoolError: there is no such model, the model cannot be exported or opened, a provider that was named cannot
            load, or an option is unknown or settled already.
    """
    check_known(options, "load")
    if isinstance(model, MaskedSession):
        needs = {
            "gradient": gradient,
            "feature_map": feature_map,
            "head": head,
            "gradient_output": gradient_output,
        }
        given = {"providers": providers, "threads": threads, "provider_options": provider_options}
        refuse_for_session(model, {**given, **needs, **options})
        return model
    named = [providers] if isinstance(providers, str) else providers or ()
    required = make_defaults_constant(named)
    maps = name_feature_maps(feature_map)
    choice = ModelChoice(
        model,
        gradient=gradient or gradient_output is not None,
        feature_map=maps,
        head=head,
        mask_required=required,
        gradient_output=gradient_output,
        **options,
    )
    path = find_model(choice, say)
    session = MaskedSession(path, providers=providers, threads=threads, provider_options=provider_options)
    session.write_half = write_half
    return session


def write_half(path: Path, outputs: Collection[str]) -> bytes:
    """Returns the part of a file that gives some of its outputs, as a model in memory."""
    from masktool.exporters.outputs_alone import read_outputs_alone

    return read_outputs_alone(path, outputs)


def refuse_for_session(session: MaskedSession, given: dict[str, object]) -> None:
    """Raises MasktoolError where an option was given that an open session has settled already."""
    if names := name_given(given):
        raise MasktoolError(
            "the model is open already", where=session.path, got=names, fix="give that to masktool.load with the path"
        )
