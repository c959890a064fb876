"""The operating system: processes and their end, whole-file writes, file locks, pauses."""
