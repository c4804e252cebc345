"""Prompt text: cleaning as the official code does it, and the shape of a UMT5 encoder."""
