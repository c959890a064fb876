"""What a service said, whichever way it came."""

import json
from typing import Any


def value_of(text: str, media_type: str) -> Any:
    """The JSON value, or the text as it is where its media type says nothing of JSON.

    Raises ValueError for what is no JSON although it says so.
    """
    if "json" not in media_type:
        return text
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def answer_of(text: str, media_type: str) -> str:
    """`text` of a JSON object, a JSON string, else what was said as it is. Raises ValueError."""
    value = value_of(text, media_type)
    found = value.get("text") if isinstance(value, dict) else value
    return found if isinstance(found, str) else text
