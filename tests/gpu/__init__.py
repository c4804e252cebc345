"""The kit: everything about the pack that only a machine with a card can tell, in one command with a time limit (`python dev.py gpu`)."""
