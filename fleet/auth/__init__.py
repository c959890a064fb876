"""API tokens, their scopes and their tickets."""
