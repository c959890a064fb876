"""What the workers run."""
