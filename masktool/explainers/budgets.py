"""What a budget of forward passes buys: the default method by budget, and each method's settings for N passes.

This is the one place that says which method explains where none is named. What a method makes of N passes stands with
the method (:meth:`masktool.explainers.method.Method.within`); how methods compare at equal budgets, ``masktool evaluate
compare`` measures. A pass is one image through the network, masked or not; one with gradients counts as one too, and so
does one of the layers behind a feature map, although the former takes two to three times as long and the latter less.
"""

from __future__ import annotations

import dataclasses
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


def bound_passes(method: Method, task: Task) -> Task:
    """Returns a task with the most passes that its targets are worth by default, where the user has chosen nothing.

    A budget that was given, and any option of the method with a value, is the user's choice, and stays as it is.
    """
    most = [each.most_passes for each in task.targets if each.most_passes is not None]
    is_open = task.stopping.budget is None and all(map(method.leaves_open, option_names(method)))
    if not most or not is_open or method.count_passes(task) is None:
        return task
    return dataclasses.replace(task, stopping=dataclasses.replace(task.stopping, budget=min(most)))


def option_names(method: Method) -> tuple[str, ...]:
    """Returns the names of a method's options."""
    return tuple(field.name for field in dataclasses.fields(method))


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
