"""What is known of a sweep and its cells. No torch, no Ray."""
