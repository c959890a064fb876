"""Tokens, their scopes and their tickets."""
