"""Where a clip cuts to another scene: there, two frames bent to the same moment do not show the same picture."""

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange

from ..packages import opencv

SIDE = 32  # of the thumbnails, in pixels
WINDOW, SIGMA = 11, 1.5  # of the Gaussian, in pixels; these and the constants: Wang et al. 2004
STABLE_MEAN, STABLE_CONTRAST = 0.01**2, 0.03**2


def similarity(first: torch.Tensor, second: torch.Tensor) -> float:
    """Structural similarity (SSIM) of two images (1, C, H, W) in 0..1, seen as thumbnails: 1 where equal, about 0 where unrelated."""
    a, b = _thumbnail(first), _thumbnail(second)
    mean_a, mean_b, square_a, square_b, product = (_local_mean(image) for image in (a, b, a * a, b * b, a * b))
    variances = (square_a - mean_a**2) + (square_b - mean_b**2)
    covariance = product - mean_a * mean_b
    light = (2 * mean_a * mean_b + STABLE_MEAN) / (mean_a**2 + mean_b**2 + STABLE_MEAN)
    return float((light * (2 * covariance + STABLE_CONTRAST) / (variances + STABLE_CONTRAST)).mean())


def _thumbnail(image: torch.Tensor) -> np.ndarray:
    small = F.interpolate(image.float(), (SIDE, SIDE), mode="area")
    return rearrange(small, "1 c h w -> h w c").cpu().numpy()


def _local_mean(image: np.ndarray) -> np.ndarray:
    """Under a Gaussian window, where that lies inside the image."""
    inside = slice(WINDOW // 2, -(WINDOW // 2))
    return np.asarray(opencv().GaussianBlur(image, (WINDOW, WINDOW), SIGMA))[inside, inside]
