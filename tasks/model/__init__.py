"""Calling models through LiteLLM: tiers, replies, errors, the offline echo."""
