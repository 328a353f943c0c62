"""Running an exported file: sessions, providers, batches, photographs and their preprocessing.

Needs numpy, Pillow and ONNX Runtime; the last is imported when a session is opened, not before.
"""

from masktool.runtime.images import read_image
from masktool.runtime.preprocessing import PreparedImage, prepare
from masktool.runtime.session import MaskedSession

__all__ = ["MaskedSession", "PreparedImage", "prepare", "read_image"]
