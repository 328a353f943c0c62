"""What is fuzzed: one file per kind of input, each with the mutants it draws and what has to become of them."""
