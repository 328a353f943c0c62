"""What masking costs on every execution provider of a machine, unattended: ``python -m benchmarks.gpu``."""
