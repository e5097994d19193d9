"""Collected where schemathesis is installed, which `make fuzz` sees to."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("schemathesis") else ["test_generated_requests.py"]
