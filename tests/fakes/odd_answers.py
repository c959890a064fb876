"""Answers that real providers were seen to give, and that the protocol does not foresee.

By the model's name; each is sent whole, or streamed where that is asked for.

    refused   a refusal           silent    an empty text       nulltext  no text at all
    limited   cut at the limit    spent     nothing but `length`
    cutcall   a call cut at the limit       legacy    a `function_call`
    noreason  no finish reason    blank     an empty one        strange   an unknown one
    broke     `error` after some text       parts     content as a list of parts
    objects   arguments as an object        halves    an emoji, half in each of two deltas

Streamed only: calls without an index (`noindex`), all with 0 (`zeros`), with 0 and no id (`noids`),
two in one chunk (`onechunk`), with id and name in each fragment (`repeated`), with 0 and new ids in
one chunk (`newids`); `lonehalf` is half an emoji; `nodone` ends without `[DONE]`, `baredone` with
nothing else, `baretorn` too, in the middle of a document.
"""

from collections.abc import Iterator
from typing import Any

EMOJI = "\N{GRINNING FACE}"
TWO_CALLS = [("lookup", '{"q": "one"}'), ("lookup", '{"q": "two"}')]
_NONE: dict[str, Any] = {"role": "assistant", "content": None}

Choice = tuple[dict[str, Any], str | None]

#: Message and finish reason of a whole answer.
_WHOLE: dict[str, Choice] = {
    "refused": (_NONE | {"refusal": "I would rather not."}, "stop"),
    "silent": (_NONE | {"content": ""}, "stop"),
    "nulltext": (_NONE, "stop"),
    "limited": (_NONE | {"content": "Half an ans"}, "length"),
    "spent": (_NONE | {"content": ""}, "length"),
    "noreason": (_NONE | {"content": "all said"}, None),
    "blank": (_NONE | {"content": "all said"}, ""),
    "strange": (_NONE | {"content": "all said"}, "cosmic_ray"),
    "broke": (_NONE | {"content": "some"}, "error"),
    "nodone": (_NONE | {"content": "all said"}, "stop"),
    "baredone": (_NONE | {"content": "all said"}, None),
    "baretorn": (_NONE | {"content": '{"a": '}, None),
    "lonehalf": (_NONE | {"content": "a \ud83d"}, "stop"),
    "halves": (_NONE | {"content": f"a {EMOJI} b"}, "stop"),
    "parts": (
        _NONE | {"content": [{"type": "text", "text": "all "}, {"type": "text", "text": "said"}]},
        "stop",
    ),
}
_CALLING = ("objects", "noindex", "zeros", "noids", "onechunk", "repeated", "newids")
KINDS = frozenset({*_WHOLE, *_CALLING, "cutcall", "legacy"})


def message(kind: str, body: dict[str, Any]) -> Choice:
    """The message and the finish reason of a whole answer."""
    if kind in _WHOLE:
        return _WHOLE[kind]
    name = _tool(body)
    if kind == "legacy":
        call = {"name": name, "arguments": '{"q": "x"}'}
        return _NONE | {"function_call": call}, "function_call"
    if kind == "cutcall":
        return _NONE | {"tool_calls": [_call("c1", name, "")]}, "length"
    if _answered(body):
        return _NONE | {"content": "all said"}, "stop"
    calls = [
        _call(f"c{place}", name, {"q": word} if kind == "objects" else f'{{"q": "{word}"}}')
        for place, word in enumerate(("one", "two"), start=1)
    ]
    return _NONE | {"tool_calls": calls}, "tool_calls"


def deltas(kind: str, body: dict[str, Any]) -> Iterator[Choice]:
    """The pieces of the same answer, each with its finish reason."""
    whole, reason = message(kind, body)
    if whole.get("tool_calls") and kind in _CALLING:
        for fragments in _fragments(kind, _tool(body)):
            yield _NONE | {"tool_calls": fragments}, None
    elif kind == "halves":
        yield {"role": "assistant", "content": "a \ud83d"}, None
        yield {"content": "\ude00 b"}, None
    elif kind == "cutcall":
        yield _NONE | {"tool_calls": [{"index": 0, **whole["tool_calls"][0]}]}, None
    else:
        yield whole, None
    if kind not in ("noreason", "baredone", "baretorn"):
        yield {}, reason


def _fragments(kind: str, name: str) -> Iterator[list[dict[str, Any]]]:
    """The calls of two words in fragments: a list for each chunk."""
    index = {"zeros": {"index": 0}, "noids": {"index": 0}, "newids": {"index": 0}, "noindex": {}}
    whole: list[dict[str, Any]] = []
    for place, word in enumerate(("one", "two")):
        at = index.get(kind, {"index": place})
        call_id = {} if kind == "noids" else {"id": f"c{place + 1}"}
        first = {**at, **call_id, "type": "function"}
        if kind in ("onechunk", "objects", "noids", "newids"):
            arguments: Any = {"q": word} if kind == "objects" else f'{{"q": "{word}"}}'
            whole.append({**first, "function": {"name": name, "arguments": arguments}})
            continue
        again = {"name": name} if kind == "repeated" else {}
        yield [{**first, "function": {"name": name, "arguments": '{"q": '}}]
        rest = first if kind == "repeated" else at
        yield [{**rest, "function": {**again, "arguments": f'"{word}"}}'}}]
    if kind == "noids":
        yield from ([one] for one in whole)
    elif whole:
        yield whole


def _call(call_id: str, name: str, arguments: Any) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"id": call_id, "type": "function", "function": function}


def _tool(body: dict[str, Any]) -> str:
    offered = body.get("tools") or [{"function": {"name": "lookup"}}]
    return str(offered[0]["function"]["name"])


def _answered(body: dict[str, Any]) -> bool:
    return bool(body["messages"][-1]["role"] == "tool")
