"""Explanations of one photograph by masktool and by other libraries, side by side; see ``__main__``.

One file per peer: ``DISTRIBUTION`` is its package, ``METHODS`` holds its methods by masktool's names. A method takes
the problem, a number of samples and a batch (None: the peer's own default) and returns the function that explains,
which takes a seed and returns a map (height, width). The files import no masktool: a peer may live in an environment of
its own.
"""
