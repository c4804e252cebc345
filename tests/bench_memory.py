"""GPU memory by calculation: what a run takes beside the weights, and what core sets aside for it. No GPU is needed, nor the memory.

    python dev.py bench memory            the numbers of docs/memory.md: experts of the real shape in every size, decoding, attention functions
    python dev.py bench memory --check    small networks on the processor: the calculated peak beside the measured one

Core's own networks run with tensors that have shapes and no contents (live_memory.py). GB are 2^30 bytes.
"""

import argparse
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import bench_sampling
import tiny_weights
from comfyui import import_pack
from live_memory import LiveMemory, pretended_card
from peak_memory import PeakMemory

GIB = 2**30
FRAMES = (17, 33, 49, 81, 121, 161)
WIDE = {"dim": 5120, "ffn_dim": 13824, "num_heads": 40, "text_dim": 4096}
BLOCKS = 2  # of 40: the most is taken in the first, which copies its input
TEXT_TOKENS = 512
SMALL = {"dim": 512, "ffn_dim": 1024, "num_heads": 4, "text_dim": 4096}
STEPS = 12
Size = tuple[int, int]


def latent_shape(size: Size, frames: int) -> tuple[int, ...]:
    return (1, 16, (frames - 1) // 4 + 1, size[1] // 8, size[0] // 8)


def expert(device: str, dtype: torch.dtype, scaled_fp8: bool = False, shape: dict[str, int] = WIDE, blocks: int = BLOCKS) -> Any:
    """Core's model of a Wan transformer, as core's loader sets it up, without weights from a file."""
    import comfy.supported_models
    config = comfy.supported_models.WAN21_T2V({"image_model": "wan2.1", "model_type": "t2v", "num_layers": blocks, **shape})
    config.set_inference_dtype(dtype, None)
    config.scaled_fp8 = torch.float8_e4m3fn if scaled_fp8 else None
    return config.get_model({}, device=torch.device(device))


def evaluate(model: Any, latent: tuple[int, ...], prompts: int, device: str, dtype: torch.dtype) -> Callable[[], torch.Tensor]:
    """One call of an expert as core's sampler makes it: so many prompts at once."""
    x, sigma = torch.ones((prompts, *latent[1:]), device=device), torch.ones(prompts, device=device)
    context = torch.ones(prompts, TEXT_TOKENS, 4096, device=device, dtype=dtype)
    return lambda: model.apply_model(x, sigma, c_crossattn=context)


def peak_of(run: Callable[[], object], device: str) -> int:
    """Bytes of the tensors on the device that are made meanwhile, at the most."""
    with LiveMemory(device) as memory:
        run()
    return memory.peak


def activations(size: Size, frames: int, prompts: int, scaled_fp8: bool = True, attention: str = "pytorch", free: float = 8 * GIB,
                blocks: int = BLOCKS) -> int:
    """Bytes that one call of a 14B expert in half precision takes on a card, beside its weights."""
    with pretended_card(attention, free):
        model = expert("cuda", torch.float16, scaled_fp8, blocks=blocks)
        return peak_of(evaluate(model, latent_shape(size, frames), prompts, "cuda", torch.float16), "cuda")


def set_aside(size: Size, frames: int) -> tuple[float, float]:
    """Bytes that core counts with on an NVIDIA card: for both prompts, which it makes room for, and for one, which it leaves free for certain."""
    import comfy.sampler_helpers
    with pretended_card():
        patcher = SimpleNamespace(model=expert("cuda", torch.float16, blocks=1))
        both, one = comfy.sampler_helpers.estimate_memory(patcher, latent_shape(size, frames), {})
        return both, one


class Sampling:
    """Our sampler around experts that are stubs: what is held while they compute."""

    def __init__(self, pack: Any) -> None:
        import comfy.model_management
        import comfy.sd
        self.pack = pack
        self.held: list[int] = []
        self.memory = LiveMemory(comfy.model_management.get_torch_device().type)
        self.experts = tuple(comfy.sd.load_diffusion_model_state_dict(tiny_weights.expert(seed)) for seed in (1, 2))
        for model in self.experts:
            model.set_model_unet_function_wrapper(lambda apply, args: self.stub(args["input"]))

    def stub(self, x: torch.Tensor) -> torch.Tensor:
        self.held.append(self.memory.now)
        return torch.ones_like(x)

    def most_held(self, contender: str, size: Size, frames: int, at_once: bool) -> int:
        """Bytes at the begin of any call; an expert's own share of them is in `activations`."""
        width, height = size
        options = argparse.Namespace(contender=contender, width=width, height=height, frames=frames)
        run = bench_sampling.contender(self.pack, options, self.experts)
        needed = mock.Mock(return_value=0.0 if at_once else float("inf"))
        with mock.patch.object(type(self.experts[0].model), "memory_required", needed), torch.no_grad():
            run(2)  # brings the stubs to the device
            self.held, self.memory = [], LiveMemory(self.memory.device_type)
            with self.memory:
                run(STEPS)
        return max(self.held)

    def latents(self, contender: str, at_once: bool) -> float:
        """The same as a number of latents: what grows with them."""
        small, large = (((256, 256), 17), ((256, 256), 81))
        growth = self.most_held(contender, *large, at_once) - self.most_held(contender, *small, at_once)
        return growth / (latent_bytes(*large) - latent_bytes(*small))


def latent_bytes(size: Size, frames: int) -> int:
    return 4 * torch.Size(latent_shape(size, frames)).numel()


def vae(device: str, dtype: torch.dtype, dim: int = 96) -> Any:
    """Core's VAE object around its network of Wan 2.1, without weights from a file."""
    import comfy.ldm.wan.vae
    import comfy.sd
    made = object.__new__(comfy.sd.VAE)
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    with torch.device(device):
        made.first_stage_model = comfy.ldm.wan.vae.WanVAE(dim=dim, z_dim=16, dim_mult=[1, 2, 4, 4], num_res_blocks=2, attn_scales=[],
                                                          temperal_downsample=[False, True, True], dropout=0.0)
    torch.set_default_dtype(default)
    made.device, made.output_device, made.vae_dtype = torch.device(device), torch.device("cpu"), dtype
    made.process_output = lambda pictures: torch.clamp((pictures + 1.0) / 2.0, min=0.0, max=1.0)
    made.memory_used_decode = lambda shape, dtype: 0
    made.patcher = None
    return made


def stream(pack: Any, model: Any, latent: tuple[int, ...]) -> Callable[[], None]:
    """Our decoding, whose chunks leave the device one by one."""
    samples, module = torch.ones(latent), pack.nodes.host.video.vae

    def run() -> None:
        with mock.patch.object(module, "keep_loaded", lambda *_: None):
            for chunk in module.decoded(model, samples):
                chunk.cpu()

    return run


def decoding(pack: Any, size: Size, frames: int) -> tuple[int, int]:
    """Bytes beside the weights on a card, in bfloat16: core's way, whole, and ours."""
    with pretended_card():
        model = vae("cuda", torch.bfloat16)
        latent = latent_shape(size, frames)
        samples = torch.ones(latent, device="cuda", dtype=torch.bfloat16)
        return peak_of(lambda: model.first_stage_model.decode(samples), "cuda"), peak_of(stream(pack, model, latent), "cuda")


def check() -> dict[str, dict[str, float]]:
    """Megabytes, calculated and measured, of small networks in float32 on this processor."""
    pack = import_pack(cpu=True)
    import comfy.ldm.modules.attention
    import comfy.ldm.wan.model
    latent = (1, 16, 3, 32, 32)

    def both(make: Callable[[], Callable[[], object]]) -> dict[str, float]:
        with torch.no_grad(), mock.patch.object(comfy.ldm.wan.model, "optimized_attention", comfy.ldm.modules.attention.attention_pytorch):
            with FakeTensorMode():
                calculated = peak_of(make(), "cpu")
            run = make()
            run()
            memory = PeakMemory()
            run()
            return {"calculated": calculated / 2**20, "measured": memory.megabytes()}

    return {"expert": both(lambda: evaluate(expert("cpu", torch.float32, shape=SMALL), latent, 2, "cpu", torch.float32)),
            "decoding": both(lambda: stream(pack, vae("cpu", torch.float32, dim=16), latent))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    if options.check:
        print(json.dumps(check()))
        return
    print_tables()


def print_tables() -> None:
    pack = import_pack(cpu=True)
    landscape = pack.nodes.engine.video.sizes.LANDSCAPE
    sampling = Sampling(pack)
    print("latents that the sampler holds while an expert computes, with one prompt and with both at once")
    for contender in ("ours", "ours unipc", "ours unipc regular"):
        print(f"  {contender:<20}" + ", ".join(f"{sampling.latents(contender, at_once):.2f}" for at_once in (False, True)))
    held = [sampling.latents("ours unipc regular", at_once) for at_once in (False, True)]
    print(f"\nGB beside the weights: calculated for one prompt and for both | set aside by core for the same\nframes  {'   '.join(landscape)}")
    for frames in FRAMES:
        cells = []
        for size in landscape.values():
            one, both = (activations(size, frames, prompts) + held[prompts - 1] * latent_bytes(size, frames) for prompts in (1, 2))
            core_both, core_one = set_aside(size, frames)
            cells.append(f"{one / GIB:5.2f} {both / GIB:5.2f} | {core_one / GIB:5.2f} {core_both / GIB:5.2f}")
        print(f"{frames:>6}  " + "    ".join(cells), flush=True)
    print("\ndecoding, GB beside the weights: core's way, ours")
    for frames in FRAMES:
        print(f"{frames:>6}  " + "    ".join("{:5.2f} {:5.2f}".format(*(count / GIB for count in decoding(pack, size, frames)))
                                             for size in landscape.values()), flush=True)
    print("\none prompt, 832x480x81, with core's other attention functions, 8 GB free and 16: GB")
    for attention in ("sub_quad", "split"):
        print(f"  {attention}: " + ", ".join(f"{activations(landscape['480p'], 81, 1, attention=attention, free=free * GIB) / GIB:.2f}"
                                             for free in (8, 16)), flush=True)


if __name__ == "__main__":
    main()
