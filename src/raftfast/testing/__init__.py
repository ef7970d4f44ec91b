"""For tests of services: whole clusters in virtual time by one seed, and real ones in one process.

Floor 6. The simulator is real members over modelled links, disks and clocks: no socket, file, thread or real clock is
anywhere in it, but for the command line of `__main__`. `cluster` and `blocking_cluster` are the real ones.
"""

from .blocking_cluster import BlockingCluster
from .cluster import Cluster
from .faults import CALM, Faults
from .invariants import BrokenInvariant
from .machine import Registers
from .process import SimulatedNode
from .simulation import Simulation, SimulationFailure

__all__ = [
    "CALM",
    "BlockingCluster",
    "BrokenInvariant",
    "Cluster",
    "Faults",
    "Registers",
    "SimulatedNode",
    "Simulation",
    "SimulationFailure",
]
