"""The names of a server's tools as a model is told them: providers take few characters, and 64."""

import hashlib
import re
from collections.abc import Iterable

#: What providers take for the name of a function.
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
_LENGTH_MAX = 64
#: Characters of a long name; the rest is a hash of the whole.
_KEPT = 55


def told_names(own: Iterable[str]) -> dict[str, str]:
    """Told name -> the server's own, in an order that is always the same.

    A name that providers take stays. In others each character that they do not take becomes `_`;
    what is longer then, or another's name, ends with a hash.
    """
    names = sorted(set(own))
    told = {name: name for name in names if NAME.match(name)}
    for name in names:
        if told.get(name) != name:
            changed = re.sub(r"[^A-Za-z0-9_-]", "_", name) or "_"
            if len(changed) > _LENGTH_MAX or changed in told:
                digest = hashlib.sha256(name.encode(errors="replace")).hexdigest()
                changed = f"{changed[:_KEPT]}_{digest[:8]}"
            told[changed] = name
    return dict(sorted(told.items()))
