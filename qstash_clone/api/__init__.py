"""The HTTP side: publish on a hot path, everything else as small Starlette routes."""
