"""Everything an operator can set: read, checked as a whole, frozen.

`settings` has the keys of `[fleet]`. A larger section has its own module; `sections` has the rest.
"""
