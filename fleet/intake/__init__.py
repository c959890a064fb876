"""The one way in: an event is checked, routed and accepted, or kept while the broker is away."""
