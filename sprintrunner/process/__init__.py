"""Spawns, follows, limits and ends the process tree of one agent; recognises those of a former life."""

from __future__ import annotations

from .identity import (
    boot_id,
    end_holders,
    end_marked,
    end_tree,
    find_holders,
    find_marked,
    is_alive,
    start_ticks,
)
from .spec import Exit, Identity, Limits, Spec, read_exit
from .supervised import Supervised

__all__ = [
    "Exit",
    "Identity",
    "Limits",
    "Spec",
    "Supervised",
    "boot_id",
    "end_holders",
    "end_marked",
    "end_tree",
    "find_holders",
    "find_marked",
    "is_alive",
    "read_exit",
    "start_ticks",
]
