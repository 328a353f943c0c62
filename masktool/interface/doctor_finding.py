"""What one check of :func:`masktool.doctor` found."""

from __future__ import annotations

import dataclasses
from typing import Literal

CheckState = Literal["ok", "broken", "absent", "warning"]


@dataclasses.dataclass(frozen=True)
class DoctorFinding:
    """What one check found.

    Attributes:
        name: the name of the package, provider or setting that was checked.
        state: ``ok``; ``broken``: installed but fails; ``absent``: not installed; ``warning``: works, but not as it
            should.
        detail: the version, or the reason why the check failed.
        fix: the command or step that mends what the check found; None where there is nothing to mend.
        needed: whether exporting an ``.onnx`` and explaining with it depend on what was checked.
    """

    name: str
    state: CheckState
    detail: str
    fix: str | None = None
    needed: bool = False
