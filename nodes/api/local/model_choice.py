"""Which of the files below models/ the API's requests run with, and which are missing."""

from collections.abc import Mapping

import folder_paths

from ...engine.model_files import DOWNLOADS, missing_file
from ...engine.pairs import likely_pair
from ...host import safety
from ...host.language import language_model_names
from ...host.models.files import model_names
from ...host.video import interpolation
from ..settings import Models


def chosen_models(asked: Models) -> dict[str, str]:
    """A file for each of the blueprint's model parameters: the one asked for, else what is there under a usual name, else the official name."""
    high, low = likely_pair(model_names("diffusion_models"))
    present = {"high_noise_model": high, "low_noise_model": low, "text_encoder": _named("text_encoders", "umt5"), "vae": _named("vae", "wan", "2.1"),
               "language_model": language_model_names()[0], "image_classifier": safety.picture_classifier_names()[0]}
    official_high, official_low = DOWNLOADS["diffusion_models"]
    official = {"high_noise_model": official_high, "low_noise_model": official_low, "text_encoder": next(iter(DOWNLOADS["text_encoders"])),
                "vae": next(iter(DOWNLOADS["vae"]))}
    return {name: value for name in Models.model_fields if (value := getattr(asked, name) or present.get(name) or official.get(name))}


def _named(folder: str, *words: str) -> str | None:
    """The official file, or one whose name holds all the words."""
    files = model_names(folder)
    fitting = [file for file in files if all(word in file.lower() for word in words)]
    return next((file for file in DOWNLOADS[folder] if file in files), next(iter(fitting), None))


def missing_models(models: Mapping[str, str]) -> list[str]:
    """A sentence for each file that is not there, with where to get it."""
    needed = [("diffusion_models", models["high_noise_model"]), ("diffusion_models", models["low_noise_model"]),
              ("text_encoders", models["text_encoder"]), ("vae", models["vae"])]
    missing = [missing_file(folder, name) for folder, name in needed if folder_paths.get_full_path(folder, name) is None]
    interpolation.interpolator_names()  # which tells 0.3.75 of their folder
    for name in interpolation.OFFICIAL:
        try:
            interpolation.interpolator_path(name)
        except ValueError as error:
            missing.append(str(error))
    return missing
