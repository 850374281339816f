"""Where the bytes of a sweep live: a local folder or a bucket."""
