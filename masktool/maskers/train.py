"""From a torch classifier and images to one ONNX file that classifies and explains: :func:`train_masker`."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import torch

from masktool.contract import Masking, SamplerRule, Size
from masktool.datasets.examples import digest
from masktool.errors import MasktoolError
from masktool.exporters import add_gradients_to, export_source
from masktool.exporters.result import Export
from masktool.exporters.settings import LabelsLike, PreprocessingLike
from masktool.exporters.sources import source_from_module
from masktool.exporters.torch_sources.modules import LoadedModule, load_module
from masktool.exporters.user_choices import module_preprocessing, read_labels, read_settings
from masktool.files import temporary_directory
from masktool.maskers.checkpoint import Checkpoint, check_identity, load_checkpoint
from masktool.maskers.classifier import TorchClassifier
from masktool.maskers.judges import Judge, LayerJudge
from masktool.maskers.network import ExplainedClassifier
from masktool.maskers.plan import Plan, make_plan
from masktool.maskers.settings import TrainingSettings
from masktool.maskers.training import Record, Training
from masktool.maskers.training_run import TrainingRun, average, choose_workers
from masktool.maskers.written_files import check_written_files
from masktool.messages import parameter
from masktool.progress import Progress, Say, log, no_progress
from masktool.runtime.session import MaskedSession
from masktool.sampler_rules import choose_rule

CHECKPOINT_SUFFIX = ".checkpoint"


def train_masker(
    model: object,
    data: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    arch: str | None = None,
    input_size: Size | None = None,
    channels: int | None = None,
    preprocessing: PreprocessingLike | None = None,
    labels: LabelsLike | None = None,
    class_output: str | None = None,
    trust_code: bool = False,
    settings: TrainingSettings | None = None,
    masking: Masking = "fill",
    rule: SamplerRule | None = None,
    workers: int | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    log: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    say: Say = log,
) -> Export:
    """Trains a masking model beside a classifier and writes both as one ONNX file.

    The file takes what the classifier takes, and a mask, which may be left out; it gives what the classifier gives, and
    ``saliency_map`` (N, 1, H, W) float32 in [0, 1], 1 = salient for the class that the classifier predicts.

    Args:
        model: torch classifier: a model that :func:`masktool.exporters.torch_sources.modules.load_module` takes, or its
            result; a module in memory is copied, not changed.
        data: path of the images with their classes: a folder with a subfolder per class, or a file of labels, see
            :func:`masktool.datasets.examples.read_examples`.
        path: path of the ONNX file to write.
        arch: name of the architecture that a state dict belongs to; None where ``model`` is no state dict.
        input_size: (height, width) of the input in pixels; None takes the preprocessing's.
        channels: number of channels of the images that a preset of ``preprocessing`` is for; None finds it.
        preprocessing: preprocessing of the images, in any form that :func:`masktool.export` takes; None takes that of
            the model's hub.
        labels: names of the classes, or the path of a file of them; None takes those of the model's hub.
        class_output: name of the output that holds the class scores, needed where several outputs may.
        trust_code: whether a model file is read although that may run code from it: a pickled module, or a
            ``torch.export`` archive that cannot be checked to hold none.
        settings: settings of the training; None takes the published ones.
        masking: masking mode of the written file: ``fill`` hides pixels behind the mean that the preprocessing
            subtracts, as the training with the infiller ``none`` does, and costs nothing; ``layer`` carries the mask
            through every layer.
        rule: rule of the written file for samplers narrower than their stride under ``layer`` masking, as for
            :func:`masktool.export`.
        workers: number of processes that read images; None reads in this process on a CPU, and takes up to 8 for a GPU.
        checkpoint: path of the file that the training is kept in; None is ``path`` with ``.checkpoint`` behind it. It
            is written after each epoch, at least every two minutes, and when a signal asks to stop.
        resume: whether to go on from the checkpoint where there is one. A finished training is not repeated: the file
            alone is written, perhaps with another ``masking``.
        log: path of a file for one JSON document per step, written with each checkpoint: the loss, its terms, the mean
            area of the masks, accuracies. A resumed training writes the same as one that was not interrupted. None
            writes none.
        progress: function that is called with a description and the number of steps, and returns a context manager that
            yields a function to call with the number of steps just done and a note; None shows nothing.
        say: function that is given messages for the user, a line at a time; by default the logger ``masktool`` (level
            INFO).

    Returns:
        The export that was written; its ``metadata.masker`` holds the settings and the last epoch's figures.

    Raises:
        MasktoolError: the model, the images or the settings cannot be used, the loss is no longer finite, or an
            unfinished training stands where the checkpoint would be written and ``resume`` is off.
        KeyboardInterrupt: SIGINT or SIGTERM came; the checkpoint is written.
    """
    path, names, rule = Path(path), read_labels(labels), choose_rule(masking, rule)
    target = Path(f"{path}{CHECKPOINT_SUFFIX}") if checkpoint is None else Path(checkpoint)
    steps_log = None if log is None else Path(log)
    written = ((parameter("path"), path), (parameter("checkpoint"), target), (parameter("log"), steps_log))
    check_written_files(model, Path(data), written)
    saved = find_saved(target, resume=resume, say=say)
    if not isinstance(model, LoadedModule):
        model = load_module(model, arch=arch, trust_code=trust_code)
    steps = module_preprocessing(model, input_size, preprocessing, channels)
    plan = make_plan(model, Path(data), input_size, steps, names, class_output, settings or TrainingSettings())
    identity = plan.identity()
    if saved is not None:
        check_identity(saved.identity, identity, target)
    for line in plan.describe():
        say(line)
    with contextlib.ExitStack() as stack:
        training = make_training(plan, stack)
        records: list[Record] = []
        if saved is not None:
            training.restore(dict(saved.state))
            records = list(saved.records)
            say(f"going on from {target}: {training.done} of {plan.steps} steps are done")
        run = TrainingRun(plan, training, records, identity, target, steps_log)
        run.train(choose_workers(workers, plan.device), progress or no_progress, say)
    return write_file(plan, training, records, path, masking, rule)


def find_saved(path: Path, *, resume: bool, say: Say) -> Checkpoint | None:
    """Returns the checkpoint to go on from; None to start anew.

    Raises:
        MasktoolError: the checkpoint of an unfinished training would be written over.
    """
    saved = load_checkpoint(path)
    if not resume and saved is not None and not saved.finished:
        raise MasktoolError(
            "an unfinished training is kept there",
            where=path,
            got=f"{saved.state['done']} of {saved.steps} steps",
            fix="go on with " + parameter("resume", True) + ", or delete it",
        )
    if resume and saved is None:
        say(f"nothing to resume at {path}: training from the start")
    return saved if resume else None


def make_training(plan: Plan, stack: contextlib.ExitStack) -> Training:
    """Returns a training at its first step; the files that it holds open are closed with the stack."""
    assert plan.head.name is not None  # the plan has counted its classes
    judge = open_layer_judge(plan, stack) if plan.settings.through == "layer" else None
    classifier = TorchClassifier(plan.module, plan.head.name, plan.head.kind)
    size = plan.preprocessing.size
    return Training(classifier, plan.stages, size, plan.settings, plan.steps, plan.device, judge)


def open_layer_judge(plan: Plan, stack: contextlib.ExitStack) -> Judge:
    """Exports the classifier with layer masking, without and with gradients, and returns the judge that runs both."""
    folder = stack.enter_context(temporary_directory())
    settings = read_settings(masking="layer", class_output=plan.head.name, output_kind=plan.head.kind)
    export_source(plan.source, folder / "forward.onnx", settings)
    add_gradients_to(folder / "forward.onnx", folder / "backward.onnx", loss="log-softmax")
    provider, threads = "auto" if plan.device.type == "cuda" else "cpu", torch.get_num_threads()
    forward, backward = (
        stack.enter_context(MaskedSession(folder / name, providers=provider, threads=threads))
        for name in ("forward.onnx", "backward.onnx")
    )
    return LayerJudge(forward, backward)


def write_file(
    plan: Plan,
    training: Training,
    records: Sequence[Record],
    path: Path,
    masking: Masking,
    rule: SamplerRule | None,
) -> Export:
    """Exports the classifier and its masker as one file."""
    training.masker.eval().cpu()
    plan.module.cpu().to(memory_format=torch.contiguous_format)
    joint = ExplainedClassifier(plan.module, training.masker, plan.stages).eval()
    known = dataclasses.replace(plan.loaded.known, module=joint)
    loaded = dataclasses.replace(plan.loaded, known=known)
    source = source_from_module(loaded, plan.preprocessing.size, len(plan.preprocessing.mean))
    about = {
        "settings": plan.settings.to_json(),
        "stages": [{"name": each.name, "channels": each.channels, "size": list(each.size)} for each in plan.stages],
        "pictures": len(plan.examples),
        "pictures_sha256": digest(plan.examples),
        "steps": plan.steps,
        "figures": average(records[-plan.steps_per_epoch :]),
    }
    settings = read_settings(
        masking=masking,
        rule=rule,
        baseline="mean" if masking == "fill" else None,
        preprocessing=plan.preprocessing,
        labels=plan.labels,
        class_output=plan.head.name,
        output_kind=plan.head.kind or "logits",
    )
    return export_source(dataclasses.replace(source, masker=about), path, settings)
