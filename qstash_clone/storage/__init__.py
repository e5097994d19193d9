"""Redis: one atomic script per step of a message's life."""
