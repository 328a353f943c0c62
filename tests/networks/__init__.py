"""Networks that the tests export, and what makes random weights worth testing with."""
