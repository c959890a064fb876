"""The parts that make a Celery worker an agent's worker."""
