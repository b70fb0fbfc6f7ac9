"""Stages and everything that runs without Prefect."""
