"""The simulator: whole clusters in virtual time, one seed for everything. Public, for users' own state machines too.

Floor 5. Real members over modelled links, disks and clocks. No socket, file, thread or real clock anywhere in here, but
for the command line of `__main__`.
"""

from .faults import CALM, Faults
from .invariants import BrokenInvariant
from .machine import Registers
from .process import SimulatedNode
from .simulation import Simulation, SimulationFailure
from .states import MachineFault

__all__ = [
    "CALM",
    "BrokenInvariant",
    "Faults",
    "MachineFault",
    "Registers",
    "SimulatedNode",
    "Simulation",
    "SimulationFailure",
]
