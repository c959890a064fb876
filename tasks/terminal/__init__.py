"""Programs that talk to a person: kept in a pseudo-terminal, typed to, and read off its screen."""
