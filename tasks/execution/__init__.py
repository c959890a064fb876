"""Running turns: in a worker, offline, and the imports before the fork."""
