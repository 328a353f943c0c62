"""masktool, masking by ``layer``."""

from benchmarks.peers.own import own_methods
from benchmarks.peers.problem import MASKED

DISTRIBUTION = "masktool"
METHODS = own_methods(MASKED)
