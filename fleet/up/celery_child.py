"""Celery's own command line, run by a supervisor: it ends when its supervisor does."""

import sys

from fleet.up.lifeline import watch_lifeline


def main() -> None:
    """`celery` with the arguments of this process."""
    watch_lifeline()
    from celery.__main__ import main as celery

    sys.exit(celery())


if __name__ == "__main__":
    main()
