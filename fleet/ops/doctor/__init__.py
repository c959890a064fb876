"""The checks of `fleet doctor`, each with its remedy; `checks.examine` lists them.

The checks of the server itself are in `fleet.broker.audit`.
"""
