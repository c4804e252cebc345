"""A worker: one ComfyUI on one GPU, and what asks it for one video at a time. No word of Ray in it."""
