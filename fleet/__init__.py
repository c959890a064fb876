"""A durable Celery worker fleet for language-model agents. Imports nothing: start-up is cheap."""
