"""Text fit to be shown: without passwords, prompts and keys."""

import re

_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]*@")

#: Shown by Celery, its events and Flower in place of arguments.
HIDDEN = "(hidden)"


def mask_url(text: str) -> str:
    """`text` with the user and password of every URL in it replaced by `***`."""
    return _CREDENTIALS.sub("***@", text)
