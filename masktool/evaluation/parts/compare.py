"""Comparison: which method explains best for the same number of forward passes?

Every method makes its map at each budget of passes, with the settings that it has for that budget and all of its
samples; one whose settings do not change with the budget stands once, at its own cost. The maps are made through one
model and judged by others, the same network with other masking: the area between removing the least and the most
relevant first (SRG), insertion and deletion; where the object is known, energy and PxAP; over two seeds, how alike the
maps are; and the time. Beside them stand maps that know nothing of the model. Figures, definitions and sources are
those of :mod:`masktool.evaluation.metrics`.

A pass is one image through the network, or through the layers behind a feature map, forward or with gradients; the time
tells what that leaves out. Maps of an image share passes (:mod:`masktool.evaluation.comparing.shared_scores`), and each
is charged with all that it asks for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from masktool.errors import MasktoolError
from masktool.evaluation.comparing.contenders import LeftOut
from masktool.evaluation.comparing.drawing import SceneDrawing
from masktool.evaluation.comparing.shared_scores import Times
from masktool.evaluation.comparing.standings import Standings
from masktool.evaluation.findings import Findings
from masktool.evaluation.maps import BASELINE_MAPS, Map, MethodChoice
from masktool.evaluation.metrics.faithfulness.insertion_deletion import InsertionDeletion
from masktool.evaluation.metrics.faithfulness.trial import Trial
from masktool.evaluation.metrics.localisation.energy import energy_inside
from masktool.evaluation.metrics.localisation.pixel_average_precision import count_pixels
from masktool.evaluation.metrics.map_similarity import rank_correlation
from masktool.evaluation.named_models import NamedModel
from masktool.evaluation.part import Part, check_distinct, register
from masktool.evaluation.parts.localisation import UNSIGNED_BASELINES
from masktool.evaluation.scene import Scene
from masktool.explainers.method import METHODS
from masktool.explainers.stopping import FEWEST_PASSES
from masktool.journal import Record
from masktool.option_checks import check_count

BUDGETS = (25, 100, 250, 1000)
"""Default budgets of forward passes."""
STEPS = 8
"""Default steps of insertion and of deletion: with 45 maps and two judges 1,300 passes an image, a fifth of all."""
STABILITY_IMAGES = 5
"""Default number of images whose maps are made with a second seed, which costs nearly as much as all else."""


class JudgedMap(NamedTuple):
    """A map that is judged.

    Attributes:
        method: name of the method, or of the baseline map.
        budget: the method's budget; None of a baseline map.
        attributions: map (h, w) at the model's input.
        signed: whether 0 separates support from opposition.
        passes: number of passes that it takes; None of a baseline map.
        times: time that it takes; None of a baseline map.
    """

    method: str
    budget: int | None
    attributions: Map
    signed: bool
    passes: int | None = None
    times: Times | None = None

    @property
    def key(self) -> str:
        """What the map is known by within its image."""
        return self.method if self.budget is None else f"{self.method} {self.budget}"

    def describe(self) -> dict[str, Any]:
        """Returns the part of a record that says whose map it is, and what it took."""
        return {
            "method": self.method,
            "budget": self.budget,
            "passes": self.passes,
            "cpu_seconds": None if self.times is None else self.times.cpu,
            "wall_seconds": None if self.times is None else self.times.wall,
        }

    def stability(self, again: Map | None) -> float | None:
        """Returns the rank correlation with the map of another seed; 1 of a method that draws nothing at random."""
        if self.budget is None:
            return None
        return 1.0 if again is None else rank_correlation(self.attributions, again)


@register
@dataclasses.dataclass(frozen=True)
class MethodComparison(Part):
    """Methods at equal budgets of passes.

    Attributes:
        explainer: model that the maps explain.
        modes: models that judge the maps: one network, in several masking modes; the first decides which is best.
        choices: methods to compare, with options that hold at every budget.
        budgets: budgets of forward passes, rising.
        n_steps: steps of insertion and of deletion.
        steady: names of the images whose maps are made with a second seed.
        seed: seed of every random choice.
        batch: number of masks per forward pass; None takes the session's own.
    """

    name: ClassVar[str] = "compare"
    title: ClassVar[str] = "Methods at equal budgets"

    explainer: NamedModel
    modes: Sequence[NamedModel]
    choices: Sequence[MethodChoice]
    budgets: Sequence[int] = BUDGETS
    n_steps: int = STEPS
    steady: frozenset[str] = frozenset()
    seed: int = 0
    batch: int | None = None

    def __post_init__(self) -> None:
        check_distinct("method", [choice.name for choice in self.choices])
        for budget in self.budgets:
            check_count("budgets", budget, minimum=FEWEST_PASSES)
        if not self.budgets or list(self.budgets) != sorted(set(self.budgets)):
            raise MasktoolError("option out of range", where="budgets", expected="rising", got=list(self.budgets))
        check_count("n_steps", self.n_steps, minimum=2)

    @property
    def models(self) -> Sequence[NamedModel]:
        """The model that is explained, and the judges."""
        return [self.explainer, *(model for model in self.modes if model is not self.explainer)]

    def settings(self) -> Mapping[str, Any]:
        """Returns everything besides models and images that decides the records, JSON values by name."""
        return {
            "explained_with": self.explainer.name,
            "judged_through": [model.name for model in self.modes],
            "methods": [choice.describe() for choice in self.choices],
            "budgets": list(self.budgets),
            "n_steps": self.n_steps,
            "second_seed": sorted(self.steady),
            "seed": self.seed,
            "batch": {model.name: model.session.batch_size(self.batch) for model in self.models},
        }

    def measure(self, scene: Scene) -> Record:
        """Draws and judges every map of one image."""
        drawing = SceneDrawing(self.explainer, scene, self.choices, self.seed, self.batch)
        target = int(drawing.scores.argmax())
        right = None if scene.known.label is None else target == scene.known.label
        drawn, left_out = self.draw(scene, drawing)
        maps = {each.key: each.attributions for each in drawn}
        judged = {model.name: self.judge(scene, model, maps, target) for model in self.modes}
        again = self.redraw(scene)
        rows = [
            each.describe()
            | {"judged": {name: figures[each.key] for name, figures in judged.items()}}
            | {"stability": None if again is None else each.stability(again.get(each.key))}
            | locate(each, scene, right)
            for each in drawn
        ]
        return {"target": target, "right": right, "maps": rows, "left_out": left_out}

    def draw(self, scene: Scene, drawing: SceneDrawing) -> tuple[list[JudgedMap], list[dict[str, Any]]]:
        """Draws all maps of an image; returns them, and the budgets that methods do not fit into."""
        drawn, left_out = [], []
        for found in drawing.draw_all(self.budgets):
            if isinstance(found, LeftOut):
                left_out.append(dataclasses.asdict(found))
            else:
                contender, made = found
                drawn.append(JudgedMap(contender.method.name, contender.budget, *made))
        baselines = (
            JudgedMap(name, None, draw(scene, self.seed), name not in UNSIGNED_BASELINES)
            for name, draw in BASELINE_MAPS.items()
        )
        return [*drawn, *baselines], left_out

    def redraw(self, scene: Scene) -> dict[str, Map] | None:
        """Draws the maps of methods that draw samples again, with the next seed, by key; None for other images."""
        if scene.known.name not in self.steady:
            return None
        drawing_ones = [each for each in self.choices if METHODS[each.name].draws()]
        drawing = SceneDrawing(self.explainer, scene, drawing_ones, self.seed + 1, self.batch)
        drawn, _ = self.draw(scene, drawing)
        return {each.key: each.attributions for each in drawn if each.budget is not None}

    def judge(
        self, scene: Scene, model: NamedModel, maps: Mapping[str, Map], target: int
    ) -> dict[str, Mapping[str, float | None]]:
        """Returns insertion, deletion and SRG of every map through one model, by key."""
        trial = Trial(
            name=scene.known.name,
            image=scene.array,
            layout=model.session.layout,
            maps=maps,
            redraw=never_redraw,
            target=target,
            answer=model.session.scores,
            masking=model.session.metadata.masking,
            batch=model.session.batch_size(self.batch),
            seed=self.seed,
        )
        return {key: dict(found.figures) for key, found in InsertionDeletion(self.n_steps).measure(trial).items()}

    def summarise(self, records: Mapping[str, Record]) -> Findings:
        """Returns the findings: how the contenders stand, and charts of quality against passes."""
        return Standings(
            records=list(records.values()),
            judges=[model.name for model in self.modes],
            explained_with=self.explainer.name,
            budgets=self.budgets,
            seed=self.seed,
        ).findings()


def locate(drawn: JudgedMap, scene: Scene, right: bool | None) -> dict[str, Any]:
    """Returns the figures of where a map lies, None where the object is unknown or the model gets the image wrong."""
    if scene.inside is None or right is False:
        return {"energy": None, "counts": None}
    return {
        "energy": energy_inside(drawn.attributions, scene.inside, drawn.signed),
        "counts": count_pixels(drawn.attributions, scene.inside),
    }


def never_redraw(name: str, seed: int) -> NDArray[np.float64]:
    """Stands where a metric could ask for a map of another seed, which insertion and deletion do not."""
    raise AssertionError(f"{name} with seed {seed}")
