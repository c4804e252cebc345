"""LoRA files: every key family of the field read into one normal form, routed to the experts, and reported."""
