"""Sampling through ComfyUI: the solvers, the guider that crosses from expert to expert, acceleration."""
