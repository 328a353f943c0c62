"""How well a map finds the object: one metric per file, each a plain function over one map (h, w) and what is known.

Whatever has no value for an image, such as the energy of a map without a positive part, is None and never 0.
"""
