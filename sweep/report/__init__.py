"""The page of a sweep, its figures and sentences, and the same for notebooks."""
