"""Drawn scenes whose objects are known to the pixel: small networks trained on them, and their maps measured."""
