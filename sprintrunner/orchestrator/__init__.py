"""The thread that carries a batch through the workflow; the only writer of state."""

from .core import Orchestrator
from .house import House

__all__ = ["House", "Orchestrator"]
