"""Reading requests: bodies, parameters, problem documents, bounded threads."""
