"""Stacks of LoRAs as files: what a file may say, how it is written, and where its LoRAs come from."""
