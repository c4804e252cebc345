"""Many GPUs behind one address: a gateway that knows every job, and workers on Ray that each run one ComfyUI."""
