"""The methods, one paper per file. A file here that registers a ``Method`` is found without being named anywhere."""
