"""Ray: where workers run, how they are reached, and who starts them again."""
