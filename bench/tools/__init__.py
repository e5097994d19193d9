"""The processes that the measures start besides the service: load, receiver and references."""
