"""What a tool server answered, as text for a model."""

import json
from collections.abc import Iterator
from typing import Any

from fleet.formats.terminal_text import sanitize_value


def result_text(result: Any) -> str:
    """The text of a result of the protocol; a note stands for what is no text.

    What is structured only is told as JSON; beside text it says the same again, and is left out.
    """
    texts = list(_texts(result.content))
    if result.structured_content is not None and not any(
        block.type == "text" for block in result.content
    ):
        structured = sanitize_value(result.structured_content)
        texts.append(json.dumps(structured, ensure_ascii=False))
    return "\n".join(texts)


def _texts(blocks: list[Any]) -> Iterator[str]:
    for block in blocks:
        match block.type:
            case "text":
                yield block.text
            case "image" | "audio":
                yield f"[{block.type}, {block.mime_type}, {_size(block.data)} bytes: not shown]"
            case "resource_link":
                yield f"[resource {block.uri}: {block.title or block.name}]"
            case "resource":
                yield _resource(block.resource)
            case other:
                yield f"[{other}: not shown]"


def _resource(resource: Any) -> str:
    text = getattr(resource, "text", None)
    if text is not None:
        return f"[resource {resource.uri}]\n{text}"
    kind = resource.mime_type or "of no type"
    return f"[resource {resource.uri}, {kind}, {_size(resource.blob)} bytes: not shown]"


def _size(encoded: str) -> int:
    """Of what is in base64, without decoding it."""
    return len(encoded) * 3 // 4 - encoded[-2:].count("=")
