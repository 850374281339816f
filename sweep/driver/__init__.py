"""What the process of a command does with its request."""
