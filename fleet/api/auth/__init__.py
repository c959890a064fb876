"""Callers of the API: access, middleware, rate limit, tickets."""
