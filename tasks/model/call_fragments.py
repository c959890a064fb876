"""Fragments of streamed tool calls, each with the index of its call.

The protocol gives each call an index, an id and a name in its first fragment, and the index alone
afterwards. Some providers leave the index out, or send 0 for every call; some repeat id and name in
each fragment, and some send no id at all.
"""

import json
import uuid
from dataclasses import dataclass
from typing import Any

from tasks.model.text_parts import Halves


@dataclass(slots=True)
class _Call:
    index: int  #: its place among the calls
    sent_index: Any
    id: str
    name: str = ""
    arguments: str = ""

    @property
    def is_whole(self) -> bool:
        try:
            return isinstance(json.loads(self.arguments), dict)
        except (ValueError, RecursionError):
            return False


def new_id() -> str:
    """An id for a call that came without one."""
    return f"call_{uuid.uuid4().hex[:12]}"


class CallFragments:
    """The calls of one message so far."""

    def __init__(self) -> None:
        self._calls: list[_Call] = []
        self._halves = Halves()

    def mended(self, fragment: dict[str, Any]) -> dict[str, Any]:
        """The fragment with the index of its call; id and name only where the call is new."""
        function = fragment.get("function")
        function = function if isinstance(function, dict) else {}
        name, call_id = str(function.get("name") or ""), str(fragment.get("id") or "")
        arguments = function.get("arguments")
        if not isinstance(arguments, str):
            arguments = "" if arguments is None else json.dumps(arguments, ensure_ascii=False)
        call = self._call_of(fragment.get("index"), call_id, name)
        is_new = call is None
        if call is None:
            taken = any(one.id == call_id for one in self._calls)
            call = _Call(len(self._calls), fragment.get("index"), "" if taken else call_id)
            self._calls.append(call)
        told: dict[str, Any] = {"name": name} if name and not call.name else {}
        call.name = call.name or name
        piece = self._halves.join(call.index, arguments)
        call.arguments += piece
        mended = {"index": call.index, "type": "function", "function": {**told, "arguments": piece}}
        if call_id and not call.id and not is_new:
            call.id = call_id
        if is_new:
            # LiteLLM drops a call without an id.
            mended["id"] = call.id or new_id()
        return mended

    def _call_of(self, index: Any, call_id: str, name: str) -> _Call | None:
        """The call that a fragment continues; None for a new call."""
        newest = self._calls[-1] if self._calls else None
        if index is not None:
            same = [call for call in self._calls if call.sent_index == index]
            newest = same[-1] if same else None
        if call_id:
            known = [call for call in self._calls if call.id == call_id]
            if known and (index is None or known[-1].sent_index == index or not name):
                return known[-1]
            # An id that comes late, or a new call.
            late = newest is not None and not newest.id and not name
            return newest if late else None
        if newest is None or not name:
            return newest
        # A name again without an id: a new call, unless the call before is repeated, unfinished.
        return newest if newest.name == name and not newest.is_whole else None
