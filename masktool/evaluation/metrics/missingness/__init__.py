"""Metrics of missingness bias, over the predictions on images with parts removed; one idea per file."""
