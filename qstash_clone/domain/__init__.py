"""Pure functions and frozen values; time, ids and randomness arrive as arguments."""
