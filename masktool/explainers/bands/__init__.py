"""Which bands of an input mattered: groups of them, what stands in for missing ones, and what each contributes."""
