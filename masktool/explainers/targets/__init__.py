"""The kinds of targets, one per file; :data:`masktool.explainers.target.TARGETS` finds them by looking in here."""
