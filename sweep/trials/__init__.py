"""A cell in the executor of Ray."""
