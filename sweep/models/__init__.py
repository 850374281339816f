"""Trained models taken out of a sweep: applied to pictures, and exported."""
