"""The code that workers execute."""
