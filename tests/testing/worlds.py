"""Worlds in which the members' rules are tried hard: which faults, which settings."""

from __future__ import annotations

from dataclasses import replace

from raftfast.config import Config
from raftfast.testing import Faults

ROUGH = Faults(
    delay=0.01,
    long_delay_chance=0.02,
    long_delay=0.5,
    disk_delay=0.01,
    crash=0.15,
    pause=0.15,
    partition=0.2,
    one_way=0.05,
    cut=0.1,
    half_open=0.05,
    slow_disk=0.1,
    stalled_disk=0.1,
    transfer=0.1,
    voter_change=0.1,
    compact=0.1,
)
"""A world in which leaders change all the time."""

SETTINGS = Config(node_timeout=1.0, trim_keep=4, trim_keep_time=0.0, max_append_bytes=300, rewrite_min_bytes=1000)
SLOW_DISKS = replace(ROUGH, disk_delay=0.1, stalled_disk=0.3, crash=0.05)
SMALL_STEPS = replace(SETTINGS, max_append_bytes=1, max_inflight=2, trim_keep=64)
DISORDER = replace(ROUGH, message_chaos=0.3, partition=0.3)
LOSSES = replace(ROUGH, wipe=0.3, reset=0.2, voter_change=0.05, forget=0.05)
DISKS = replace(SLOW_DISKS, failing_disk=0.3, full_disk=0.2, trim=0.3)
SHARDS = replace(ROUGH, entry=3.0, wipe=0.1, reset=0.1, forget=0.2, join=0.1)
LATE = replace(DISORDER, long_delay_chance=0.05, long_delay=2.0)
SMALL_RESERVE = replace(SETTINGS, disk_reserve_bytes=2000)
FEW_SESSIONS = replace(SETTINGS, max_sessions=3, session_window=4)
