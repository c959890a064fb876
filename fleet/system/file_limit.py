"""The number of files that this process may open."""

import resource


def raise_to_hard() -> int:
    """Raise the soft limit to the hard one, as any process may; the limit that holds."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):  # macOS refuses what is above a limit of its own
            return soft
    return hard
