"""The kinds of detectors' heads, one per file; :data:`masktool.explainers.detector.DETECTORS` finds them in here."""
