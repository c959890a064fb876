"""The promises of a fleet, one file each, on a real Valkey and real Celery workers."""
