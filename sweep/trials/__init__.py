"""A cell in the hands of Ray."""
