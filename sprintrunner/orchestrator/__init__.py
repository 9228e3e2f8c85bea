"""The thread that carries a batch through the workflow; the only writer of state."""

from .core import MAX_RESUMES, Orchestrator
from .house import House
from .ownership import changed_by_us, changed_later, has_moved

__all__ = ["MAX_RESUMES", "House", "Orchestrator", "changed_by_us", "changed_later", "has_moved"]
