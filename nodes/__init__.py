"""The nodes of the pack: each file declares one room of the menu; host talks to ComfyUI, engine computes."""
