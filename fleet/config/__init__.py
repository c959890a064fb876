"""Everything an operator can set: read, checked as a whole, frozen."""
