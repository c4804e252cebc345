"""The causal Wan VAE as a stream: a few latent frames in, their pictures out, with the feature cache between them."""

from collections.abc import Iterator
from dataclasses import dataclass
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
FRAMES_PER_VISIT = 4  # latent frames that a tile decodes before its features go out again
Cache = list[Any]


@dataclass(frozen=True)
class Way:
    """Tiles of at most `tile` latent units; with `parks`, their features rest outside the GPU while other tiles are decoded."""

    tile: int
    parks: bool = False

    def __str__(self) -> str:
        return f"tiles of {self.tile * LATENT_STRIDE} pixels" + (" that rest in main memory" if self.parks else "")


def ways(longest: int, has_elsewhere: bool) -> list[Way]:
    """From the fastest to the one that needs least: moving the features of all tiles out and in costs more than tiles do."""
    tiles = [Way(tile) for tile in TILES if tile < longest]
    return [Way(longest), *tiles, *(Way(way.tile, True) for way in tiles if has_elsewhere)]


def decoded(vae: comfy.sd.VAE, samples: torch.Tensor) -> Iterator[torch.Tensor]:
    """Chunks (t, H, W, 3) in 0..1, on the VAE's device, of one latent (1, 16, T, H/8, W/8).

    Whole frames first; when memory runs out, again in tiles that get smaller, without repeating frames that are out already.
    Another VAE, or an object that brings its own decode, decodes in its own way and is cut into chunks.
    """
    if not streams(vae):
        yield from chunks(vae.decode(samples).flatten(0, 1))
        return
    done = 0
    tried = ways(max(samples.shape[-2:]), vae.output_device != vae.device)
    for way, then in zip(tried, [*tried[1:], None], strict=True):
        try:
            for chunk in _new_chunks(_decoded_in_tiles(vae, samples, way), done):
                done += len(chunk)
                yield chunk
        except Exception as error:
            if then is None or not is_out_of_memory(error):
                raise
        else:
            return
        log.warning("out of memory: decoding goes on in %s", then)
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


def _decoded_in_tiles(vae: comfy.sd.VAE, samples: torch.Tensor, way: Way) -> Iterator[torch.Tensor]:
    height, width = samples.shape[-2:]
    overlap = way.tile // 4
    park = vae.output_device if way.parks else None
    decoders = [TileDecoder(vae, window) for window in windows(height, width, way.tile, overlap)]
    shape = decoders[0].window.of(samples).shape
    for begin, end in _steps(samples.shape[2], FRAMES_PER_VISIT if way.parks else _frames_at_once()):
        comfy.model_management.throw_exception_if_processing_interrupted()
        keep_loaded(vae.patcher, vae.memory_used_decode(shape, vae.vae_dtype))
        latent = samples[:, :, begin:end]
        if len(decoders) == 1:
            pictures = decoders[0].decode(latent)
        else:
            tiles = [(decoder.window.scaled(LATENT_STRIDE), decoder.decode(latent, park)) for decoder in decoders]
            pictures = blend(tiles, height * LATENT_STRIDE, width * LATENT_STRIDE, overlap * LATENT_STRIDE)
        yield rearrange(pictures, "1 c t h w -> t h w c")


class TileDecoder:
    """One tile of the picture on its way through time."""

    def __init__(self, vae: comfy.sd.VAE, window: Window) -> None:
        self.vae, self.window = vae, window
        self.cache = _empty_cache(vae.first_stage_model.decoder)

    @torch.no_grad()
    def decode(self, latent: torch.Tensor, park: torch.device | None = None) -> torch.Tensor:
        """Pictures (1, 3, t, H, W) of the next latent frames; between two calls, cache and pictures rest on `park`."""
        with on_device(self.vae.device):
            cache, self.cache = _moved(self.cache, self.vae.device), []  # whoever else holds it keeps the old features alive beside the new
            pictures = [self._pictures(frames, cache).to(park) for frames in self.window.of(latent).split(_frames_at_once(), 2)]
            self.cache = cache if park is None else _moved(cache, park)
            return torch.cat(pictures, 2)

    def _pictures(self, frames: torch.Tensor, cache: Cache) -> torch.Tensor:
        model = self.vae.first_stage_model
        x = model.conv2(frames.to(device=self.vae.device, dtype=self.vae.vae_dtype))
        pictures = model.decoder(x, feat_cache=cache, feat_idx=[0])
        pictures = torch.cat(pictures, 2) if isinstance(pictures, list) else pictures  # chunks in newer versions
        return self.vae.process_output(pictures.to(torch.float32))


def _takes_pairs() -> bool:
    """Newer versions of the decoder want one latent frame, then two at a time; 0.3.75 wants one at a time."""
    return hasattr(comfy.ldm.wan.vae, "count_cache_layers")


def _empty_cache(decoder: torch.nn.Module) -> Cache:
    count = comfy.ldm.wan.vae.count_cache_layers if _takes_pairs() else comfy.ldm.wan.vae.count_conv3d
    return [None] * count(decoder)


def _frames_at_once() -> int:
    return 2 if _takes_pairs() else 1


def _steps(latent_frames: int, size: int) -> Iterator[tuple[int, int]]:
    """The first frame alone, as the decoder wants it."""
    yield 0, 1
    for begin in range(1, latent_frames, size):
        yield begin, min(begin + size, latent_frames)


def _moved(cache: Cache, device: torch.device) -> Cache:
    return [entry.to(device) if isinstance(entry, torch.Tensor) else entry for entry in cache]
