"""The head of a network, which stands in a file beside it: opened once, and run in its session's place."""

from __future__ import annotations

from masktool.exported_files import find_head_file
from masktool.runtime.batching import CPU_PIXELS, LARGEST_BATCH, choose_batch_size
from masktool.runtime.session import MaskedSession

BESIDE = "head"
"""What a session knows its open head by."""
NUMBERS_PER_PASS = CPU_PIXELS * 16
"""Most numbers in the feature maps of one pass: 8 images of 224 x 224 have as many behind the first layers of a ResNet,
64 channels of half the height and width."""


def open_head(session: MaskedSession) -> MaskedSession:
    """Returns the session of a file's head, on the same providers; its passes count as those of the file's session.

    Raises:
        MasktoolError: the file has no head, or the head is missing, damaged or of another export.
    """
    with session.guard:
        if BESIDE not in session.beside:
            session.runtime_session()  # a closed one opens nothing
            head = MaskedSession(
                find_head_file(session.path, session.metadata),
                providers=session.providers,
                threads=session.threads,
                provider_options=session.provider_options,
            )
            head.counter = session.counter
            session.beside[BESIDE] = head
        opened: MaskedSession = session.beside[BESIDE]
        return opened


def choose_places(head: MaskedSession, requested: int | None) -> int:
    """Returns the number of places in one pass of a head: as requested, else so that its maps take bounded memory.

    Raises:
        MasktoolError: the requested number is no whole number from 1.
    """
    if requested is not None:
        return choose_batch_size(requested, None, on_gpu=False)
    height, width = head.known_size or (1, 1)
    return max(1, min(LARGEST_BATCH, NUMBERS_PER_PASS // (height * width * (head.channels or 1))))
