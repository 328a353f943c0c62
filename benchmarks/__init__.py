"""Scripts that the README's figures come from; each measures both sides in one run."""
