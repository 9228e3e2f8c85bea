"""A whole sprint without an account: a sample project and an agent that speaks Claude's stream-json."""

from .launcher import install_launcher

__all__ = ["install_launcher"]
