"""The methods of explanation, one file each. Every file here that registers a ``Method`` is found by itself."""
