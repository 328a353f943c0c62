"""Metrics of faithfulness: does a map say what the model relies on? One paper, one file, found by looking in here."""
