"""What callers of a node hand in, checked where it comes in: ports, slots, host names, the address that is announced.

Floor 4, a part of the node. Values only: nothing of a node's state is looked at.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from .config import Config
from .errors import ConfigError
from .records import SLOTS
from .statemachine import StateMachine

__all__ = [
    "announced_ip",
    "checked_config",
    "checked_hostname",
    "checked_port",
    "checked_state_machine",
    "checked_text",
    "slot_bits",
]


def announced_ip(host: str) -> str:
    """What is announced for a bound host: an address of its own, else nothing, and connections show it (PROTOCOL 2)."""
    try:
        return "" if ipaddress.ip_address(host).is_unspecified else host
    except ValueError:
        return ""


def checked_text(name: str, value: str) -> str:
    """A text. Raises TypeError."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be str, not {type(value).__name__}")
    return value


def checked_config(config: Config | None) -> Config:
    """The settings, by default the default ones. Raises TypeError."""
    if config is None:
        return Config()
    if not isinstance(config, Config):
        raise TypeError(f"config must be a Config, not {type(config).__name__}")
    return config


def checked_state_machine(machine: StateMachine | None) -> StateMachine | None:
    """A state machine, or something with its three methods, or none. Raises TypeError, also for a class of them."""
    if isinstance(machine, type):
        raise TypeError(f"state_machine must be a StateMachine, not the class {machine.__name__}")
    lacking = [name for name in ("apply", "snapshot", "restore") if not callable(getattr(machine, name, None))]
    if machine is not None and lacking:
        raise TypeError(f"state_machine must be a StateMachine: {type(machine).__name__} has no {lacking[0]}()")
    return machine


def checked_port(name: str, value: int) -> int:
    """A port, 0 included. Raises ConfigError."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 65535:
        raise ConfigError(f"{name} must be from 0 to 65535, not {value!r}")
    return value


def checked_hostname(hostname: str) -> str:
    """A host name as `nodes.conf` can hold it, or none. Raises ConfigError, TypeError."""
    if len(checked_text("hostname", hostname)) > 255:
        raise ConfigError("Hostnames must be less than 256 characters")
    if not all(char.isascii() and (char.isalnum() or char in "-.") for char in hostname):
        raise ConfigError("Hostnames may only contain alphanumeric characters, hyphens or dots")
    return hostname


def slot_bits(slots: Iterable[int]) -> int:
    """Slots as the bits of a number. Raises ConfigError for what is no slot, and one that is named twice."""
    bits = 0
    for slot in slots:
        if not isinstance(slot, int) or isinstance(slot, bool) or not 0 <= slot < SLOTS:
            raise ConfigError("Invalid or out of range slot")
        if bits >> slot & 1:
            raise ConfigError(f"Slot {slot} specified multiple times")
        bits |= 1 << slot
    return bits
