"""Names of a server's tools for a model: providers accept few characters, and 64 of them."""

import hashlib
import re
from collections.abc import Iterable

#: A function name that every provider accepts.
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
_LENGTH_MAX = 64
#: A key of a part's `_meta`: its text says what was left out, and the server did not say it.
LEFT_OUT = "fleet/left_out"
#: Characters of a long name that stay; the rest becomes a hash of the whole name.
_PREFIX_CHARS = 55


def provider_names(server_names: Iterable[str]) -> dict[str, str]:
    """Map each name for providers to the server's own name, always in the same order.

    A name that providers accept stays. In any other name each refused character becomes `_`. A
    name that is then too long, or already given, ends with a hash.
    """
    names = sorted(set(server_names))
    renamed = {name: name for name in names if NAME.match(name)}
    for name in names:
        if renamed.get(name) != name:
            changed = re.sub(r"[^A-Za-z0-9_-]", "_", name) or "_"
            if len(changed) > _LENGTH_MAX or changed in renamed:
                digest = hashlib.sha256(name.encode(errors="replace")).hexdigest()
                changed = f"{changed[:_PREFIX_CHARS]}_{digest[:8]}"
            renamed[changed] = name
    return dict(sorted(renamed.items()))
