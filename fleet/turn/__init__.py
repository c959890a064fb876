"""The tools of a runner: journalled steps, live text, budget, provider limits, callbacks."""
