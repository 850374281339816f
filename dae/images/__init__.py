"""A user's own images, read from folders and arrays. Without torch."""
