"""Metrics of missingness bias: what is told of predictions on images with parts removed, one idea per file."""
