"""Prefect flows: when and why the stages run."""

import os

# Before Prefect is imported: no telemetry unless it is asked for, and a temporary server that has
# the time to start on a small or busy machine.
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "90")
