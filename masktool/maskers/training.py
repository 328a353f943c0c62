"""One training of a masker, step by step; its state can be saved after any step and loaded again.

1. The classifier runs on the images; the masker reads its activations, detached, and draws the masks.
2. A judge gives scores of the masked images: the classifier; with ``classifier="ca"``, at half of the steps an
   earlier state of it; with ``through="layer"``, the exported file.
3. With ``ca`` the classifier learns from the images whole, masked in and masked out.
4. Both gradients are taken before either network changes.

All randomness is a function of the seed and the step, so that a training that was interrupted and loaded again repeats
the one that was not.
Source: Phang, Park and Geras, 2020, https://arxiv.org/abs/2010.09750.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from masktool.errors import MasktoolError
from masktool.maskers.classifier import TorchClassifier
from masktool.maskers.history import History
from masktool.maskers.judges import FillJudge, Judge, hide
from masktool.maskers.network import MaskerNetwork
from masktool.maskers.objectives import ClassifiedBatch, is_right, masker_loss
from masktool.maskers.settings import TrainingSettings
from masktool.maskers.stages import Stage
from masktool.messages import parameter

MOMENTUM = 0.9
DECAY_PHASES = 3
"""Number of equal parts of the run; each divides the learning rates of the part before by ten."""
DECAY = 0.1
State = dict[str, Any]
Record = dict[str, float]


class Training:
    """A masker in training.

    Args:
        classifier: classifier whose predictions are explained; with ``classifier="ca"`` its weights change.
        stages: stages of the classifier that the masker reads.
        size: (height, width) of the input in pixels.
        settings: settings of the training.
        steps: number of steps of the whole training.
        device: device that everything runs on.
        judge: judge of masked images; None lets the classifier, or an earlier state of it, judge.

    Attributes:
        masker: masker, in training mode.
        done: number of steps so far.
    """

    def __init__(
        self,
        classifier: TorchClassifier,
        stages: Sequence[Stage],
        size: tuple[int, int],
        settings: TrainingSettings,
        steps: int,
        device: torch.device,
        judge: Judge | None = None,
    ) -> None:
        self.classifier, self.stages, self.settings, self.steps = classifier, tuple(stages), settings, steps
        self.device, self.judge, self.done = device, judge, 0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            self.masker = MaskerNetwork(stages, size).to(device).train()
        self.trains_classifier = settings.classifier == "ca"
        classifier.module.to(device=device, memory_format=torch.channels_last).eval()  # a third faster on CPUs
        classifier.module.requires_grad_(self.trains_classifier)
        self.optimizer = torch.optim.Adam(
            self.masker.parameters(), settings.learning_rate, weight_decay=settings.weight_decay
        )
        self.classifier_optimizer = (
            torch.optim.SGD(
                classifier.module.parameters(),
                settings.classifier_learning_rate,
                MOMENTUM,
                weight_decay=settings.weight_decay,
            )
            if self.trains_classifier
            else None
        )
        self.history = History(settings.history_size, settings.history_interval, settings.seed)
        self.precision = choose_precision(settings, device)

    def step(self, images: Tensor, labels: Tensor) -> Record:
        """Trains on one batch.

        Args:
            images: images (N, C, H, W) float32, normalised.
            labels: indices of the images' classes, (N,) int64.

        Returns:
            The loss, its terms and accuracies, see :class:`masktool.maskers.objectives.MaskerLoss`.

        Raises:
            MasktoolError: the loss is not finite.
        """
        images = images.to(self.device, memory_format=torch.channels_last)
        labels = labels.to(self.device)
        self.follow_schedule()
        if self.trains_classifier:
            self.history.note(self.done, self.classifier.module)
        with self.autocast():
            with torch.set_grad_enabled(self.trains_classifier):
                logits, activations = self.classifier.read(images, self.stages)
            masks = self.masker([each.detach() for each in activations])
            batch = ClassifiedBatch(images, labels, is_right(logits.detach(), labels))
            found = masker_loss(self.choose_judge(), batch, masks, self.settings)
            terms = found.terms | {"accuracy": batch.right.mean()}
            own_loss = self.classifier_loss(logits, batch, masks.detach()) if self.trains_classifier else None
        if own_loss is not None:
            terms["classifier_loss"] = own_loss
        record = read_terms(terms)
        self.check_finite(record)
        gradients = torch.autograd.grad(found.total, list(self.masker.parameters()))
        if own_loss is not None and self.classifier_optimizer is not None:
            set_gradients(self.classifier.module, own_loss)
            self.classifier_optimizer.step()
        for tensor, gradient in zip(self.masker.parameters(), gradients, strict=True):
            tensor.grad = gradient
        nn.utils.clip_grad_norm_(self.masker.parameters(), self.settings.clip)
        self.optimizer.step()
        self.done += 1
        return record

    def choose_judge(self) -> Judge:
        """Returns the judge of the masks of this step."""
        if self.judge is not None:
            return self.judge
        weights = self.history.draw(self.done) if self.trains_classifier else None
        return FillJudge(lambda images: self.classifier.logits(images, weights), self.settings.infiller)

    def classifier_loss(self, logits: Tensor, batch: ClassifiedBatch, masks: Tensor) -> Tensor:
        """Returns the classifier's own loss (): cross-entropy of the images whole, masked in and masked out."""
        loss = F.cross_entropy(logits.float(), batch.labels)
        for kept in (masks, 1 - masks):
            hidden = hide(batch.images, kept, self.settings.infiller)
            loss = loss + F.cross_entropy(self.classifier.logits(hidden).float(), batch.labels)
        return loss

    def follow_schedule(self) -> None:
        """Sets the learning rates of this step: a tenth after each third of the run."""
        factor = DECAY ** (DECAY_PHASES * self.done // self.steps)
        rates = ((self.optimizer, self.settings.learning_rate),)
        if self.classifier_optimizer is not None:
            rates += ((self.classifier_optimizer, self.settings.classifier_learning_rate),)  # type: ignore[assignment]
        for optimizer, rate in rates:
            for group in optimizer.param_groups:
                group["lr"] = rate * factor

    @contextlib.contextmanager
    def autocast(self) -> Iterator[None]:
        """Runs the networks' passes within the block in the precision chosen."""
        with torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32):
            yield

    def check_finite(self, record: Record) -> None:
        """Raises a MasktoolError where a figure of a step's record, such as the loss, is NaN or infinite."""
        if broken := [name for name, value in record.items() if not math.isfinite(value)]:
            raise MasktoolError(
                "the loss is not finite",
                where=f"step {self.done + 1} of {self.steps}",
                expected="numbers",
                got=", ".join(f"{name} {record[name]}" for name in broken),
                fix="lower " + parameter("learning_rate") + ", or check the classifier's weights and the preprocessing",
            )

    def state(self) -> State:
        """Returns everything that the next step depends on: tensors, numbers and texts in plain containers."""
        state: State = {
            "done": self.done,
            "masker": self.masker.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        if self.classifier_optimizer is not None:
            state |= {
                "classifier": dict(self.classifier.module.named_parameters()),
                "classifier_optimizer": self.classifier_optimizer.state_dict(),
                "history": self.history.snapshots,
            }
        return state

    def restore(self, state: State) -> None:
        """Goes back to a state from :meth:`state`, of a training with the same settings."""
        self.done = state["done"]
        self.masker.load_state_dict(state["masker"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.classifier_optimizer is not None:
            self.classifier.module.load_state_dict(state["classifier"], strict=False)  # buffers never change
            self.classifier_optimizer.load_state_dict(state["classifier_optimizer"])
            self.history.snapshots = state["history"]


def choose_precision(settings: TrainingSettings, device: torch.device) -> torch.dtype:
    """Returns the element type of the networks' passes."""
    if settings.precision == "auto":
        return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32
    return torch.bfloat16 if settings.precision == "bf16" else torch.float32


def choose_device(name: str) -> torch.device:
    """Returns the device of a name; ``auto`` is a GPU where there is one.

    Raises:
        MasktoolError: torch knows no such device, or this machine has none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # what torch raises for unknown and for absent devices
        raise MasktoolError("no such device", where=name, got=str(error).splitlines()[0], fix="choose cpu") from error
    return device


def read_terms(terms: dict[str, Tensor]) -> Record:
    """Returns the values of tensors () by name, fetched together, since each fetch waits for the device."""
    values = torch.stack([each.detach().float() for each in terms.values()]).tolist()
    return dict(zip(terms, values, strict=True))


def set_gradients(module: nn.Module, loss: Tensor) -> None:
    """Sets ``grad`` of every trainable weight of a module to its gradient of the loss; None for weights without one."""
    parameters = [each for each in module.parameters() if each.requires_grad]
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    for tensor, gradient in zip(parameters, gradients, strict=True):
        tensor.grad = gradient
