"""Contenders: a method at one budget of passes, with the settings that it has there.

Budgets at which a method has the same settings are one contender, of the smallest of them: what costs two passes is
shown once, at its own cost, and competes at every budget.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

from masktool.errors import MasktoolError
from masktool.evaluation.maps import MethodChoice
from masktool.explainers.budgets import fit_budget
from masktool.explainers.method import Method, build_method
from masktool.explainers.task import Task

MakeTask = Callable[[Method, int], Task]
"""Makes the task of one image for a method and a budget."""


@dataclasses.dataclass(frozen=True)
class Contender:
    """A method at a budget.

    Attributes:
        method: the method, with its settings for the budget.
        budget: the smallest of the budgets at which it has these settings.
        task: the task of the method, with the budget.
    """

    method: Method
    budget: int
    task: Task


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """A budget at which a method gives no map of an image.

    Attributes:
        method: name of the method.
        budget: the budget.
        why: what the method needs, such as more passes.
    """

    method: str
    budget: int
    why: str


def find_contenders(choice: MethodChoice, budgets: Sequence[int], make_task: MakeTask) -> Iterator[Contender | LeftOut]:
    """Yields a method at every budget at which it has other settings than at a smaller one.

    Args:
        choice: the method.
        budgets: the budgets, rising.
        make_task: function of a method and a budget that makes the task.
    """
    built = build_method(choice.name, choice.options, choice.n_samples)
    last: Method | None = None
    for budget in budgets:
        task = make_task(built, budget)
        try:
            fitted = use_all(fit_budget(built, task), task)
        except MasktoolError as error:
            yield LeftOut(choice.name, budget, error.message)
            continue
        if fitted != last:
            yield Contender(fitted, budget, task)
        last = fitted


def use_all(method: Method, task: Task) -> Method:
    """Returns a method that draws as many samples as its budget allows, whether or not its map is stable before.

    A budget is the most that may be drawn; methods are compared at what it is.
    """
    if method.most_samples is None:
        return method
    assert method.samples_option is not None
    return dataclasses.replace(method, **{method.samples_option: method.most_within(task.stopping)})
