"""masktool, masking by ``fill``."""

from benchmarks.peers.own import own_methods
from benchmarks.peers.problem import FILLED

DISTRIBUTION = "masktool"
METHODS = own_methods(FILLED)
