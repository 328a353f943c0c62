"""Folders of images with their annotations: true classes, objects as boxes or pixels, label maps to remove parts by.

:func:`read_dataset` reads a set of images to evaluate on. One file per format; every format becomes entries that
:mod:`masktool.datasets.matching` brings to images. Whatever is wrong with a single value is a problem that is listed,
and the value is not used; a file that is not what it should be is an error. :mod:`masktool.datasets.examples` reads
images to train on, where everything that is wrong is an error.
"""

from masktool.datasets.dataset import Box, Dataset, DatasetImage, Problem
from masktool.datasets.hierarchy import Hierarchy, read_hierarchy
from masktool.datasets.reading import read_dataset

__all__ = ["Box", "Dataset", "DatasetImage", "Hierarchy", "Problem", "read_dataset", "read_hierarchy"]
