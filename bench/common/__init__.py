"""What the performance programs share: servers, load, measures of processes, tables."""
