"""Metrics of faithfulness: does a map say what the model relies on? One file per paper, found by looking in here."""
