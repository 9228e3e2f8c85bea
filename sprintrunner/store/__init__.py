"""The database of one project: its tables, and the only code that reads and writes them."""

from __future__ import annotations

from .aging import Age
from .core import Store
from .opening import DATABASE, StoreDamaged
from .rows import BatchRow, CommandRow, FindingRow, RoundRow, StoryRow, TaskRow, Totals
from .schema import FindingStatus, TechSpec
from .upkeep import mend, newest_backup
from .writes import Tx

__all__ = [
    "DATABASE",
    "Age",
    "BatchRow",
    "CommandRow",
    "FindingRow",
    "FindingStatus",
    "RoundRow",
    "Store",
    "StoreDamaged",
    "StoryRow",
    "TaskRow",
    "TechSpec",
    "Totals",
    "Tx",
    "mend",
    "newest_backup",
]
