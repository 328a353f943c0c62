"""The options of each part of an evaluation: one file per part, found by looking into this package."""
