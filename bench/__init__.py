"""Measures the service against references that run on the same machine in the same run."""
