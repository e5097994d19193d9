"""A self-hosted message queue over HTTP that speaks the QStash v2 API."""

__version__ = "0.1.0"
