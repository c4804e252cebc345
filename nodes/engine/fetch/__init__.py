"""Files from the web: LoRAs and webhooks, under rules that the owner of the machine sets."""
