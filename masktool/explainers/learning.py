"""Learning parameters by gradient steps in numpy: optimisers, and a loop that stops once the loss has settled.

Every image of a batch is learned by itself: its gradient, its optimiser's state and the step at which it stops depend
on no other image, so that a batch gives what its images give one by one. An image that has settled leaves the batch
and costs nothing more.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from masktool.errors import MasktoolError
from masktool.progress import Advance

Floats = NDArray[np.floating[Any]]

PATIENCE = 100
"""Steps within which the lowest loss must improve. Losses rest on the way: NeuroMask's falls by 2 % in as many steps
while the mask still keeps nearly everything."""


class Step(NamedTuple):
    """Losses (n,) of ``n`` images before a step, and gradients (n, ...) of the shape of the parameters."""

    losses: Floats
    gradients: Floats


Objective = Callable[[Floats, NDArray[np.intp], int], Step]
"""Evaluates parameters (n, ...) of the images at the positions (n,), at the step with the given number."""


class Optimiser(Protocol):
    """Turns gradients into changes of the parameters."""

    learning_rate: float

    def changes(self, gradients: Floats, positions: NDArray[np.intp]) -> Floats:
        """Returns what to add to the parameters of the images at ``positions``, and updates the optimiser's state."""


class RmsProp:
    """Gradients over the root of their decaying mean square: v ← d v + (1 − d) g², change −r g / √(v + ε).

    The larger v is at the start, the smaller are the first steps; a start of 1 holds for a hundred. Source: Tieleman
    and Hinton, "Lecture 6.5: RMSProp", COURSERA: Neural Networks for Machine Learning, 2012.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        learning_rate: float,
        decay: float = 0.9,
        epsilon: float = 1e-10,
        first_square: float = 1,
    ) -> None:
        self.learning_rate, self.decay, self.epsilon = learning_rate, decay, epsilon
        self.squares: Floats = np.full(shape, first_square, np.float32)

    def changes(self, gradients: Floats, positions: NDArray[np.intp]) -> Floats:
        """Returns what to add to the parameters."""
        squares = self.decay * self.squares[positions] + (1 - self.decay) * np.square(gradients)
        self.squares[positions] = squares
        return -self.learning_rate * gradients / np.sqrt(squares + self.epsilon)


class Momentum:
    """Gradient descent with a memory: v ← μ v + g, change −r v.

    Source: Polyak, "Some methods of speeding up the convergence of iteration methods", 1964.
    """

    def __init__(self, shape: tuple[int, ...], learning_rate: float, momentum: float = 0.9) -> None:
        self.learning_rate, self.momentum = learning_rate, momentum
        self.velocity: Floats = np.zeros(shape, np.float32)

    def changes(self, gradients: Floats, positions: NDArray[np.intp]) -> Floats:
        """Returns what to add to the parameters."""
        velocity = self.momentum * self.velocity[positions] + gradients
        self.velocity[positions] = velocity
        return -self.learning_rate * velocity


@dataclasses.dataclass(frozen=True)
class Course:
    """The learned parameters of a batch of images, and how their losses fell.

    Attributes:
        parameters: the learned parameters (B, ...).
        losses: the loss of each image before each step, (steps, B) float64; NaN once the image has settled.
        iterations: the number of steps made for each image, (B,) integers.
        settled: whether the loss of each image settled before the steps ran out, (B,) bool.
    """

    parameters: Floats
    losses: NDArray[np.float64]
    iterations: NDArray[np.intp]
    settled: NDArray[np.bool_]

    @property
    def first(self) -> NDArray[np.float64]:
        """The loss (B,) before the first step."""
        return self.losses[0]

    @property
    def last(self) -> NDArray[np.float64]:
        """The loss (B,) before the last step."""
        last: NDArray[np.float64] = self.losses[self.iterations - 1, np.arange(len(self.iterations))]
        return last


def learn(
    start: Floats,
    objective: Objective,
    optimiser: Optimiser,
    *,
    n_iterations: int,
    tolerance: float,
    advance: Advance,
    settles_from: int = 0,
    bounds: tuple[float, float] = (-np.inf, np.inf),
    final_rate: float = 1,
) -> Course:
    """Lowers the losses of a batch of images.

    Args:
        start: the parameters (B, ...) to start from, which are not changed.
        objective: function that returns the losses and gradients of parameters.
        optimiser: the optimiser, for parameters of the shape of ``start``.
        n_iterations: the largest number of steps.
        tolerance: the share of the lowest loss by which it must improve within :data:`PATIENCE` steps; otherwise the
            image has settled. 0 never stops early.
        advance: function that is called after every step, with 1 and a note of the mean loss.
        settles_from: the first step whose loss counts for settling, where the objective changes before.
        bounds: the lowest and the highest value of a parameter.
        final_rate: the share of the learning rate to which it falls, in even steps, until ``n_iterations`` are made.

    Raises:
        MasktoolError: a loss or a gradient is no longer a number.
    """
    parameters = start.copy()
    losses = np.full((n_iterations, len(start)), np.nan)
    iterations = np.zeros(len(start), np.intp)
    settled = np.zeros(len(start), np.bool_)
    for step in range(n_iterations):
        positions = np.flatnonzero(~settled)
        if len(positions) == 0:
            break
        found = objective(parameters[positions], positions, step)
        check_step_finite(found, step, optimiser.learning_rate)
        slowed = np.float32(1 - (1 - final_rate) * step / n_iterations)
        changed = parameters[positions] + slowed * optimiser.changes(found.gradients, positions)
        parameters[positions] = np.clip(changed, *bounds)
        losses[step, positions] = found.losses
        iterations[positions] += 1
        settled[positions] = have_settled(losses[settles_from : step + 1, positions], tolerance)
        advance(1, f"loss {found.losses.mean():.3g}")
    return Course(parameters, losses, iterations, settled)


def have_settled(losses: NDArray[np.float64], tolerance: float) -> NDArray[np.bool_]:
    """Returns whether each image's losses, of (steps, n), have stopped improving: (n,) bool."""
    if len(losses) <= PATIENCE or tolerance == 0:
        return np.zeros(losses.shape[1], np.bool_)
    before, now = losses[:-PATIENCE].min(axis=0), losses.min(axis=0)
    settled: NDArray[np.bool_] = before - now <= tolerance * np.abs(now)
    return settled


def check_step_finite(found: Step, step: int, learning_rate: float) -> None:
    """Raises a MasktoolError that names the step and the setting to change, where a loss or gradient is not finite."""
    for name, values in (("loss", found.losses), ("gradient", found.gradients)):
        if not np.isfinite(values).all():
            fix = (
                "the model breaks on the masked image itself: set another baseline"
                if step == 0
                else f"set a lower learning_rate (it is {learning_rate:g})"
            )
            raise MasktoolError(
                f"the {name} is not finite", where=f"step {step}", expected="numbers", got="NaN or infinity", fix=fix
            )
