"""The pack's own socket types: only what no socket of ComfyUI can carry."""

from comfy_api.latest import io

LoraStack = io.Custom("WAN22_LORAS")  # tuple[LoraChoice, ...]
InterpolatorModel = io.Custom("WAN22_INTERPOLATOR")  # ModelPatcher of a RIFE or FILM network, or OpticalFlow
AnyInterpolatorModel = io.Custom("WAN22_INTERPOLATOR,FRAME_INTERPOLATION_MODEL,INTERP_MODEL")  # also what core's loader gives, under both its names
