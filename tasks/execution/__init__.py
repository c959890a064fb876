"""Running turns: in a worker, offline, and what is loaded before the fork."""
