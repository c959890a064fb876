"""Faults against real processes, and the auditor that judges what they leave behind."""
