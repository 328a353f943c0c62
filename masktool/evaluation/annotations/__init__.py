"""Reads what is known of images from files: true classes, objects as boxes or pixels, label maps to remove parts by.

One file per format; every format becomes entries that :mod:`masktool.evaluation.annotations.matching` brings to images.
Whatever is wrong with a single value is a problem that is listed, and the value is not used; a file that is not what it
should be is an error.
"""

from masktool.evaluation.annotations.reading import read_dataset

__all__ = ["read_dataset"]
