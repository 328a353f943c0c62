"""Measures how far explanations, and the masking beneath them, can be trusted. Runs on exported files alone.

An evaluation is a :class:`masktool.evaluation.part.Part`: it measures one image at a time and sums up afterwards.
Metrics are plain functions over arrays, one idea per file.
"""
