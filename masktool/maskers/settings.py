"""Settings of the training of a masking model; the module imports no torch, so that the command line's help is fast."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, get_args

from masktool.errors import MasktoolError
from masktool.option_checks import check_choice, check_count, check_real

Objective = Literal["in", "out", "both"]
Classifier = Literal["fix", "ca"]
Through = Literal["fill", "layer"]
Infiller = Literal["none", "mean", "blur"]
OutLoss = Literal["entropy", "classification"]
Precision = Literal["auto", "fp32", "bf16"]
Stages = tuple[str, ...] | Literal["last-two", "all"]

CHOICES: dict[str, tuple[str, ...]] = {
    "objective": get_args(Objective),
    "classifier": get_args(Classifier),
    "through": get_args(Through),
    "infiller": get_args(Infiller),
    "out_loss": get_args(OutLoss),
    "precision": get_args(Precision),
}
COUNTS = ("epochs", "batch", "history_size", "history_interval")
"""Names of the settings that are whole numbers from 1."""
STAGE_WORDS = ("last-two", "all")
LAMBDA_OUT: dict[str, float] = {"fix": 10.0, "ca": 15.0}
"""Published weights of the masked-out area, by what happens to the classifier."""


@dataclasses.dataclass(frozen=True)
class TrainingSettings:
    """How a masking model is trained; the defaults are the published ones.

    Attributes:
        objective: aim of the masks: ``in``, that the class is predicted from the kept part of the image alone; ``out``,
            that the class is no longer predicted without that part; ``both``, the sum of the two.
        classifier: what happens to the classifier: ``fix`` leaves it as it is; ``ca`` trains it alongside, and lets its
            earlier states judge masks too.
        through: how masked images are classified: ``fill`` hides pixels behind the infiller's; ``layer`` runs the mask,
            cut at .5, through layer masking.
        infiller: pixels that stand where pixels are hidden in training: ``none``, 0 in the normalised input; ``mean``,
            the image's mean colour; ``blur``, the image blurred. The written file's ``fill`` has 0 there, whichever it
            was.
        out_loss: what masks maximise on the masked-out image: the ``entropy`` of the scores, or the ``classification``
            loss.
        target_area: share of the image up to which a mask's area costs nothing; None lets every kept pixel cost.
        lambda_in: weight of the masked-in area.
        lambda_out: weight of the masked-out area; None takes the published one, 10 for ``fix`` and 15 for ``ca``.
        lambda_tv: weight of the total variation.
        stages: stages of the classifier whose activations the masker reads: ``last-two``, on which the authors settled,
            ``all``, which draws finer masks where the last two are coarse, or names of modules.
        per_class: number of images of each class to train on; None takes all.
        epochs: number of passes over the images.
        batch: number of images per step.
        learning_rate: learning rate of the masker's Adam.
        classifier_learning_rate: learning rate of the classifier's SGD, momentum .9; for ``ca`` only.
        weight_decay: weight decay of both optimizers.
        clip: norm to which the masker's gradient is clipped.
        history_size: number of earlier states of the classifier that are kept.
        history_interval: number of steps between two of these states.
        min_crop: least share of the image's area that a random crop keeps; 1 takes the crop of the preprocessing.
        flip: whether images are mirrored at random.
        seed: seed of the masker's first weights, the order of images, crops and draws from the history.
        precision: precision of the classifier's and the masker's passes; ``auto`` is bf16 on a GPU that has it, else
            fp32.
        device: torch's name of the device to train on; ``auto`` is a GPU where there is one.
    """

    objective: Objective = "both"
    classifier: Classifier = "fix"
    through: Through = "fill"
    infiller: Infiller = "none"
    out_loss: OutLoss = "entropy"
    target_area: float | None = None
    lambda_in: float = 1.0
    lambda_out: float | None = None
    lambda_tv: float = 1e-3
    stages: Stages = "last-two"
    per_class: int | None = None
    epochs: int = 10
    batch: int = 64
    learning_rate: float = 1e-3
    classifier_learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    clip: float = 10.0
    history_size: int = 30
    history_interval: int = 100
    min_crop: float = 0.08
    flip: bool = True
    seed: int = 0
    precision: Precision = "auto"
    device: str = "auto"

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            check_choice(name, getattr(self, name), choices)
        if isinstance(self.stages, str):
            check_choice("stages", self.stages, STAGE_WORDS)
        for name in COUNTS:
            check_count(name, getattr(self, name))
        check_count("seed", self.seed, 0)
        if self.per_class is not None:
            check_count("per_class", self.per_class)
        for name in ("learning_rate", "classifier_learning_rate", "clip"):
            check_real(name, getattr(self, name), above=0)
        for name in ("lambda_in", "lambda_out", "lambda_tv", "weight_decay"):
            if getattr(self, name) not in (None, 0):
                check_real(name, getattr(self, name), above=0)
        if self.min_crop != 1:
            check_real("min_crop", self.min_crop, above=0, below=1)
        if self.target_area not in (None, 0):
            check_real("target_area", self.target_area, above=0, below=1)
        self.check_layer_masking()

    def check_layer_masking(self) -> None:
        """Raises MasktoolError for settings that do not go together with layer masking."""
        if self.through == "layer" and self.classifier == "ca":
            raise MasktoolError(
                "layer masking judges by an exported file, which does not train",
                where="through=layer, classifier=ca",
                fix="leave the classifier fixed",
            )
        if self.through == "layer" and self.infiller != "none":
            raise MasktoolError(
                "layer masking fills from neighbours",
                where=f"through=layer, infiller={self.infiller}",
                fix="leave the infiller out",
            )

    @property
    def weight_out(self) -> float:
        """The weight of the masked-out area that is used: ``lambda_out``, or the published one."""
        return LAMBDA_OUT[self.classifier] if self.lambda_out is None else self.lambda_out

    def to_json(self) -> dict[str, Any]:
        """Returns every setting with the value that is used, JSON values by name."""
        stages = self.stages if isinstance(self.stages, str) else list(self.stages)
        return dataclasses.asdict(self) | {"lambda_out": self.weight_out, "stages": stages}
