"""What a budget of forward passes buys: the default method by budget, and each method's settings for N passes.

This is the one place that says which method explains where none is named. What a method makes of N passes stands with
the method (:meth:`masktool.explainers.method.Method.within`); how methods compare at equal budgets, ``masktool evaluate
compare`` measures. A pass is one image through the network, masked or not; one with gradients counts as one too, and so
does one of the layers behind a feature map, although the former takes two to three times as long and the latter less.
"""

from __future__ import annotations

from typing import NamedTuple

from masktool.errors import MasktoolError
from masktool.explainers.method import Method
from masktool.explainers.task import Task
from masktool.messages import parameter


class DefaultMethod(NamedTuple):
    """The method that explains where none is named.

    Attributes:
        fewest_passes: the smallest budget that it is the default for.
        name: the name of the method, of one that needs neither gradients nor a head: whatever was exported has it.
    """

    fewest_passes: int
    name: str


METHODS_BY_BUDGET = (DefaultMethod(0, "lime"),)
"""The default methods by budget, the smallest first.

``masktool evaluate compare`` at 25, 100, 250 and 1,000 passes chose them (docs/evidence.md): of what needs no gradients
LIME has the highest gain on every network of photographs from 250 passes on, and none is ahead of it on all with fewer.
"""
UNLIMITED = METHODS_BY_BUDGET[-1].name
"""The default without a budget."""


def default_for_budget(budget: int | None) -> str:
    """Returns the name of the method that explains within a budget of passes where none is named."""
    if budget is None:
        return UNLIMITED
    return next((each.name for each in reversed(METHODS_BY_BUDGET) if each.fewest_passes <= budget), UNLIMITED)


def fit_budget(method: Method, task: Task) -> Method:
    """Returns a method with its settings for the budget of a task, where there is one.

    Raises:
        MasktoolError: the budget is too small for the method.
    """
    budget = task.stopping.budget
    if budget is None:
        return method
    fitted = method.within(budget, task)
    needed = fitted.count_passes(task)
    if needed is None:
        raise MasktoolError(
            f"{method.title} does not say how many passes it takes",
            where=parameter("budget", budget),
            fix="leave it out",
        )
    if needed > budget:
        raise MasktoolError(
            f"the budget of passes is too small for {method.title}",
            where=parameter("budget", budget),
            expected=f"at least {needed}",
        )
    return fitted
