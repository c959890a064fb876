"""What the operating system gives: processes and their end, whole-file writes, file locks."""
