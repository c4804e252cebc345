"""Prompt expansion: a language model rewrites a short prompt into a rich one for Wan."""
