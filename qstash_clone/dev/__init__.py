"""All of it on one machine: embedded Redis, api and workers as children."""
