"""Where a clip cuts to another scene: there, two frames bent to the same moment do not show the same picture."""

import torch
import torch.nn.functional as F

SIDE = 32  # of the thumbnails, in pixels
WINDOW, SIGMA = 11, 1.5  # of the Gaussian, in pixels; these and the constants: Wang et al. 2004
STABLE_MEAN, STABLE_CONTRAST = 0.01**2, 0.03**2


def similarity(first: torch.Tensor, second: torch.Tensor) -> float:
    """Structural similarity (SSIM) of two images (1, C, H, W) in 0..1, seen as thumbnails: 1 where equal, about 0 where unrelated."""
    a, b = (F.interpolate(image.float(), (SIDE, SIDE), mode="area") for image in (first, second))
    window = _window(a.device).expand(a.shape[1], 1, WINDOW, WINDOW)
    means = [F.conv2d(image, window, groups=a.shape[1]) for image in (a, b, a * a, b * b, a * b)]
    mean_a, mean_b = means[:2]
    variances = (means[2] - mean_a**2) + (means[3] - mean_b**2)
    covariance = means[4] - mean_a * mean_b
    light = (2 * mean_a * mean_b + STABLE_MEAN) / (mean_a**2 + mean_b**2 + STABLE_MEAN)
    return float((light * (2 * covariance + STABLE_CONTRAST) / (variances + STABLE_CONTRAST)).mean())


def _window(device: torch.device) -> torch.Tensor:
    offsets = torch.arange(WINDOW, device=device) - WINDOW // 2
    weights = torch.exp(-(offsets**2) / (2 * SIGMA**2))
    weights = weights / weights.sum()
    return weights.outer(weights)
