"""What the chosen class output holds: by the user's word, held against how the output ends, else by that end."""

from __future__ import annotations

from masktool.contract import BINARY_KINDS, OutputKind
from masktool.errors import MasktoolError
from masktool.exporters.class_candidates import Candidate, Claims
from masktool.messages import OneOf, parameter


def settle_kind(chosen: Candidate, claims: Claims) -> OutputKind | None:
    """Returns what the chosen output holds.

    Raises:
        MasktoolError: the graph contradicts the kind that the user gives: a softmax or sigmoid would be taken twice; or
            two labels are given for one column that is not known to tell two classes apart.
    """
    kind = find_output_kind(chosen, claims)
    named = claims.labels is not None and len(claims.labels) > 1
    if named and chosen.columns == 1 and kind not in BINARY_KINDS:
        kinds = OneOf(tuple(each for each in sorted(BINARY_KINDS) if each in (chosen.kinds or BINARY_KINDS)), " or ")
        said = f", called {kind}" if kind is not None else ", of unknown kind"
        raise MasktoolError(
            "two labels for one column are its negative and its positive class",
            expected=" or ".join(map(str, kinds.values)),
            got=f"{chosen.name!r}, which {chosen.ends_in}{said}",
            fix="say " + parameter("output_kind", kinds) + ", or give one label",
        )
    return kind


def find_output_kind(chosen: Candidate, claims: Claims) -> OutputKind | None:
    """Returns the kind that the user gives an output, else the kind that follows from the output's end.

    Raises:
        MasktoolError: the graph contradicts the kind that the user gives.
    """
    allowed = chosen.kinds
    if claims.kind is not None:
        if allowed is not None and claims.kind not in allowed:
            told = chosen.end is not None and chosen.end.split()[0] in chosen.ends_in
            raise MasktoolError(
                "the graph says otherwise",
                where=parameter("output_kind", claims.kind),
                expected=" or ".join(allowed),
                got=f"{chosen.name!r}, which {chosen.ends_in}"
                + (" and lies between 0 and 1" if chosen.share and not told else ""),
                fix="leave " + parameter("output_kind") + " out",
            )
        return claims.kind
    if allowed is not None and chosen.end is not None:
        return allowed[0]
    if not chosen.unbounded or not chosen.backing:
        return None
    if chosen.columns == 1:
        named = claims.labels is not None and len(claims.labels) > 1
        return "binary" if named else None  # one name may be that of a regression
    return "logits"
