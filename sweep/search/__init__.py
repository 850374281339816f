"""How a search goes on: what to try next, and what to end early."""
