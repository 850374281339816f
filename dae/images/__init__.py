"""A user's own images, read from folders and arrays. Without torch, but for colour PNG files of 16 bits."""
