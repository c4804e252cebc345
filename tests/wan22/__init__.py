"""The folder `nodes` under a name of its own: in a process of ComfyUI, `nodes` is a module of ComfyUI."""

from comfyui import ROOT

__path__ = [str(ROOT / "nodes")]
