"""Interactive programs: run in a pseudo-terminal, typed to, and read off its screen."""
