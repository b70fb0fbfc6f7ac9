"""Prefect flows: when and why the stages run."""
