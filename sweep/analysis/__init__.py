"""Statistics over the records of a sweep."""
