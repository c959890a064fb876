"""Formats that others defined: signatures, Retry-After, hop counts, terminal escapes, redaction."""
