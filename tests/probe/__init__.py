"""A custom node pack for tests only: tells over HTTP what the server process still holds, and offers deliberately bad models."""

import gc

import comfy.model_patcher
import torch
from aiohttp import web
from server import PromptServer

WEB_DIRECTORY = None


@PromptServer.instance.routes.get("/probe/memory")
async def memory(_: web.Request) -> web.Response:
    gc.collect()
    objects = gc.get_objects()
    storages = [o.untyped_storage() for o in objects if type(o) in (torch.Tensor, torch.nn.Parameter)]
    tensors = {storage.data_ptr(): storage.nbytes() for storage in storages}
    return web.json_response({
        "model_patchers": sum(isinstance(o, comfy.model_patcher.ModelPatcher) for o in objects),
        "tensor_bytes": sum(tensors.values()),
    })


@PromptServer.instance.routes.get("/probe/requests")
async def requests(_: web.Request) -> web.Response:
    """What was asked for by /free and is not yet taken up by the worker."""
    return web.json_response(PromptServer.instance.prompt_queue.get_flags(reset=False))


class ProbeModelClass:
    """Passes a MODEL on, but as a model of another kind would look like."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",)}}

    RETURN_TYPES = ("MODEL",)
    FUNCTION = "run"

    def run(self, model):
        import comfy.model_base
        foreign = model.clone()
        foreign.model = comfy.model_base.BaseModel.__new__(comfy.model_base.BaseModel)
        return (foreign,)


class ProbeSpoilLatent:
    """A latent with the given number of channels, NaN in it if asked."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"channels": ("INT", {"default": 16}), "nan": ("BOOLEAN", {"default": False})}}

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "run"

    def run(self, channels, nan):
        samples = torch.full((1, channels, 5, 4, 4), float("nan") if nan else 0.0)
        return ({"samples": samples},)


NODE_CLASS_MAPPINGS = {"ProbeModelClass": ProbeModelClass, "ProbeSpoilLatent": ProbeSpoilLatent}
