"""How much noise a latent holds that was not denoised to the end."""

import torch

MOST_LEFTOVER = 1.5  # a run that ends at the level sigma leaves sigma / (1 - sigma), more than this above 0.6; encoded clips have 0.1 to 0.7


def white_noise(latent: torch.Tensor) -> float:
    """Standard deviation of the white noise in a latent (B, C, T, H, W) in the network's scale, in which finished videos spread by about 1; of the
    noisiest in the batch. Mixed second differences cancel what rows and columns have in common, and double white noise."""
    differences = latent.float().diff(dim=-1).diff(dim=-2)
    return float(differences.square().mean(dim=(1, 2, 3, 4)).sqrt().max() / 2)
