"""View models: what a page or fragment shows, worked out from the store and the project, without HTML."""
