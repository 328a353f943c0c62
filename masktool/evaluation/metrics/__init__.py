"""Metrics: plain functions over arrays and scores under masks, one idea per file, in a folder for each part."""
