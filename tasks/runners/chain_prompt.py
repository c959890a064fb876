"""What a model is told of the chain in which it is a stage: what came before, and how to vote."""

from fleet.ledger import ChainPosition, Earlier

_HOW = (
    "This is stage {stage} of {stages} ({name}) of the chain {chain!r}. You may end your answer "
    "with one line that decides how it goes on: APPROVE, REJECT: why (the chain stops), or "
    "REVISE: what to change (an earlier stage does its work again)."
)


def with_chain_prompt(text: str, place: ChainPosition | None) -> str:
    """The event's text, for a stage with what earlier stages answered and how to decide."""
    if place is None:
        return text
    how = _HOW.format(
        stage=place.stage, stages=place.stages, name=place.stage_name, chain=place.chain
    )
    return "\n\n".join([text, *map(_told, place.earlier), how])


def _told(one: Earlier) -> str:
    said = f", {one.verdict}" if one.verdict else ""
    again = f", round {one.round}" if one.round > 1 else ""
    heading = f"[stage {one.stage}, {one.agent}{again}: {one.state}{said}]"
    return f"{heading}\n{one.answer}".rstrip()
