"""Requests in their life: what is known of each, where it is kept, and who is told of its end."""
