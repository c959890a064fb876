"""Celery's own command line, run by a supervisor: it ends when its supervisor does."""

import sys

from fleet.system.lifeline import watch_lifeline


def main() -> None:
    """`celery` with the arguments of this process."""
    watch_lifeline()
    from celery.bin.celery import celery

    # Not Celery's `main`, which takes options from the environment too.
    sys.exit(celery(prog_name="celery"))


if __name__ == "__main__":
    main()
