"""Earlier states of a classifier that is trained alongside its masker.

A masker trained on the answers of one classifier may learn that classifier's blind spots; answers of earlier states as
well keep it to what is in the image. Snapshots are taken at fixed steps, and at half of all steps one of them judges.
Source: Zolna, Geras and Cho, "Classifier-agnostic saliency map extraction", CVIU 2020, https://arxiv.org/abs/1805.08249;
sizes from Phang, Park and Geras, 2020, https://arxiv.org/abs/2010.09750.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from torch import Tensor, nn

DRAW_PROBABILITY = 0.5
DRAWS = 3
"""Stream of the random numbers for the draws, apart from those for images with the same seed."""
State = dict[str, Tensor]


@dataclasses.dataclass
class History:
    """Snapshots of a classifier's trainable weights, the oldest first.

    Attributes:
        size: number of snapshots that are kept; one more drops the oldest.
        interval: number of steps between two snapshots.
        seed: seed of the draws.
        snapshots: snapshots, each the weights by name.
    """

    size: int
    interval: int
    seed: int
    snapshots: list[State] = dataclasses.field(default_factory=list)

    def note(self, step: int, classifier: nn.Module) -> None:
        """Takes a snapshot before a step at which one is due; that of step 0 is the classifier as it came."""
        if step % self.interval == 0:
            self.snapshots.append({name: weight.detach().clone() for name, weight in classifier.named_parameters()})
            del self.snapshots[: -self.size]

    def draw(self, step: int) -> State | None:
        """Returns the snapshot that judges the masks at a step; None where the classifier's present weights do.

        The draw is a function of the seed and the step, so that a resumed run draws the same.
        """
        random = np.random.default_rng((self.seed, DRAWS, step))
        if not self.snapshots or random.random() >= DRAW_PROBABILITY:
            return None
        return self.snapshots[random.integers(len(self.snapshots))]
