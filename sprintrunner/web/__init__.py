"""The web face: pages, actions, API and streams; nothing is imported until it is needed."""
