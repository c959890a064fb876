"""The checks of `fleet doctor`, each with its remedy."""
