"""Authentication of the API's callers: access, middleware, rate limit."""
