"""Dollars as people write them."""


def money(usd: float) -> str:
    """`$1.20`; below a cent as many places as show it: `$0.0042`."""
    return f"${usd:,.2f}" if usd >= 0.01 or usd < 0.00005 else f"${usd:.4f}"
