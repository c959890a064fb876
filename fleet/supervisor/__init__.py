"""Running a whole fleet on one machine: its processes started, watched and stopped in order."""
