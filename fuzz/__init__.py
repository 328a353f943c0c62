"""Finds the next fault before an outsider does: mutated files, and random networks judged by independent rules.

Not part of the package that is installed. ``python -m fuzz --help`` says what there is.
"""
