"""The thread that carries a batch through the workflow; the only writer of state."""

from .core import Orchestrator
from .house import House
from .ownership import changed_by_us, has_moved

__all__ = ["House", "Orchestrator", "changed_by_us", "has_moved"]
