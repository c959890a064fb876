"""A service's answer, in a reply or a callback."""

from typing import Any

from fleet.formats import strict_json


def value_of(text: str, media_type: str) -> Any:
    """The JSON value, or the text as it is where the media type is not JSON.

    Raises ValueError for text that is not JSON under a media type of JSON.
    """
    if "json" not in media_type:
        return text
    return strict_json.parse(text)


def answer_of(text: str, media_type: str) -> str:
    """`text` of a JSON object, a JSON string, otherwise the text as it is. Raises ValueError."""
    value = value_of(text, media_type)
    found = value.get("text") if isinstance(value, dict) else value
    return found if isinstance(found, str) else text
