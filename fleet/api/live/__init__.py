"""Live text of running turns over HTTP."""
