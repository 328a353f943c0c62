"""What keeps an output of a sampler narrower than its stride under layer masking: the names, and the one default."""

from __future__ import annotations

from typing import get_args

from masktool.contract import Masking, SamplerRule
from masktool.errors import MasktoolError
from masktool.messages import parameter
from masktool.option_checks import check_named

DEFAULT_RULE: SamplerRule = "published"
"""The rule of a file for whose export none was named."""


def choose_rule(masking: Masking, rule: SamplerRule | None) -> SamplerRule | None:
    """Returns the rule that goes with a masking mode: None for all modes but ``layer``.

    Args:
        masking: masking mode.
        rule: rule as the user gave it; None takes the default.

    Raises:
        MasktoolError: the rule is unknown, or given for another mode than ``layer``.
    """
    if rule is not None:
        check_named("rule", rule, get_args(SamplerRule))
    if masking == "layer":
        return rule or DEFAULT_RULE
    if rule is not None:
        raise MasktoolError(
            "only layer masking has a rule for samplers narrower than their stride",
            where=parameter("masking", masking),
            got=parameter("rule", rule),
            fix="leave one of both out",
        )
    return None
