"""The real Claude Code, answered by a scripted model on loopback."""
