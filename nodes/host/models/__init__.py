"""Files below models/ as ComfyUI finds and loads them, LoRAs on experts, and what of it is in memory."""
