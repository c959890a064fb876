"""What may be shown: no password of a URL, no prompt text, no key."""

import re

_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]*@")

#: What Celery, its events and Flower show in the place of arguments.
HIDDEN = "(hidden)"


def mask_url(text: str) -> str:
    """`text` with the user and password of every URL in it replaced by `***`."""
    return _CREDENTIALS.sub("***@", text)
