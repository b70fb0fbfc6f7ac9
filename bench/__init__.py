"""Measurements that are run by hand; docs/results.md holds their figures."""
