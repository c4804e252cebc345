"""The causal Wan VAE as a stream: a few latent frames in, their pictures out, with the feature cache between them."""

from collections.abc import Iterator
from typing import Any

import comfy.ldm.wan.vae
import comfy.model_management
import comfy.sd
import torch
from einops import rearrange

from ...engine.frames import chunks
from ...engine.log import log
from ...engine.video.sizes import LATENT_STRIDE
from ...engine.video.tiles import Window, blend, windows
from ..models.memory import is_out_of_memory, keep_loaded, on_device

TILES = (64, 32, 16)  # latent units: 512, 256, 128 pixels
Cache = list[Any]


def decoded(vae: comfy.sd.VAE, samples: torch.Tensor) -> Iterator[torch.Tensor]:
    """Chunks (t, H, W, 3) in 0..1, on the VAE's device, of one latent (1, 16, T, H/8, W/8).

    Whole frames first; when memory runs out, again in tiles that get smaller, without repeating frames that are out already.
    Another VAE, or an object that brings its own decode, decodes in its own way and is cut into chunks.
    """
    if not streams(vae):
        yield from chunks(vae.decode(samples).flatten(0, 1))
        return
    done = 0
    longest = max(samples.shape[-2:])
    sizes = [longest, *(tile for tile in TILES if tile < longest)]
    for tile in sizes:
        try:
            for chunk in _new_chunks(_decoded_in_tiles(vae, samples, tile), done):
                done += len(chunk)
                yield chunk
        except Exception as error:
            if tile == sizes[-1] or not is_out_of_memory(error):
                raise
        else:
            return
        log.warning("out of memory: decoding goes on in smaller tiles than %d pixels", tile * LATENT_STRIDE)
        comfy.model_management.soft_empty_cache()


def streams(vae: comfy.sd.VAE) -> bool:
    """Whether this is core's Wan VAE as core's loader makes it."""
    return (isinstance(getattr(vae, "first_stage_model", None), comfy.ldm.wan.vae.WanVAE)
            and getattr(type(vae), "decode", None) is comfy.sd.VAE.decode and "decode" not in vars(vae))


def _new_chunks(clip: Iterator[torch.Tensor], done: int) -> Iterator[torch.Tensor]:
    for chunk in clip:
        if len(chunk) > done:
            yield chunk[done:]
        done = max(0, done - len(chunk))


def _decoded_in_tiles(vae: comfy.sd.VAE, samples: torch.Tensor, tile: int) -> Iterator[torch.Tensor]:
    height, width = samples.shape[-2:]
    overlap = tile // 4
    decoders = [TileDecoder(vae, window) for window in windows(height, width, tile, overlap)]
    shape = decoders[0].window.of(samples).shape
    for begin, end in _steps(samples.shape[2]):
        comfy.model_management.throw_exception_if_processing_interrupted()
        keep_loaded(vae.patcher, vae.memory_used_decode(shape, vae.vae_dtype))
        latent = samples[:, :, begin:end]
        if len(decoders) == 1:
            pictures = decoders[0].decode(latent)
        else:
            tiles = [(decoder.window.scaled(LATENT_STRIDE), decoder.decode(latent, park=vae.output_device)) for decoder in decoders]
            pictures = blend(tiles, height * LATENT_STRIDE, width * LATENT_STRIDE, overlap * LATENT_STRIDE)
        yield rearrange(pictures, "1 c t h w -> t h w c")


class TileDecoder:
    """One tile of the picture on its way through time."""

    def __init__(self, vae: comfy.sd.VAE, window: Window) -> None:
        self.vae, self.window = vae, window
        self.cache = _empty_cache(vae.first_stage_model.decoder)

    @torch.no_grad()
    def decode(self, latent: torch.Tensor, park: torch.device | None = None) -> torch.Tensor:
        """Pictures (1, 3, t, H, W) of the next latent frames; between the tiles of a frame, cache and pictures rest on `park`."""
        vae, model = self.vae, self.vae.first_stage_model
        with on_device(vae.device):
            cache, self.cache = _moved(self.cache, vae.device), []  # whoever else holds it keeps the old features alive beside the new
            x = model.conv2(self.window.of(latent).to(device=vae.device, dtype=vae.vae_dtype))
            pictures = model.decoder(x, feat_cache=cache, feat_idx=[0])
            pictures = torch.cat(pictures, 2) if isinstance(pictures, list) else pictures  # chunks in newer versions
            self.cache = cache if park is None else _moved(cache, park)
            return vae.process_output(pictures.to(device=park, dtype=torch.float32))


def _takes_pairs() -> bool:
    """Newer versions of the decoder want one latent frame, then two at a time; 0.3.75 wants one at a time."""
    return hasattr(comfy.ldm.wan.vae, "count_cache_layers")


def _empty_cache(decoder: torch.nn.Module) -> Cache:
    count = comfy.ldm.wan.vae.count_cache_layers if _takes_pairs() else comfy.ldm.wan.vae.count_conv3d
    return [None] * count(decoder)


def _steps(latent_frames: int) -> Iterator[tuple[int, int]]:
    yield 0, 1
    size = 2 if _takes_pairs() else 1
    for begin in range(1, latent_frames, size):
        yield begin, min(begin + size, latent_frames)


def _moved(cache: Cache, device: torch.device) -> Cache:
    return [entry.to(device) if isinstance(entry, torch.Tensor) else entry for entry in cache]
