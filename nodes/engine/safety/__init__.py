"""Safety checks: what a classifier's labels mean, which frames are looked at, and what happens to those that are unsafe."""
