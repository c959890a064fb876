"""An operator's view: health, metrics, alerts, doctor."""
