"""Stand-ins for what the fleet talks to outside of itself, as real servers."""
