"""Which of the files below models/ the API's requests run with, and which are missing."""

from collections.abc import Mapping

import folder_paths

from ...engine.model_files import DOWNLOADS, missing_file
from ...engine.pairs import likely_pair
from ...host import safety
from ...host.language import language_model_names
from ...host.models.files import model_names
from ...host.video import interpolation
from ..contract import INTERPOLATORS
from ..settings import Models

FOLDERS = {"high_noise_model": "diffusion_models", "low_noise_model": "diffusion_models", "text_encoder": "text_encoders", "vae": "vae"}


def chosen_models(asked: Models) -> dict[str, str]:
    """A file for each of the blueprint's model parameters: the one asked for, else what is there under a usual name, else the official name."""
    high, low = likely_pair(model_names(FOLDERS["high_noise_model"]))
    official_high, official_low = DOWNLOADS[FOLDERS["high_noise_model"]]
    usual = {"high_noise_model": high or official_high, "low_noise_model": low or official_low,
             "text_encoder": _usual("text_encoder", "umt5"), "vae": _usual("vae", "wan", "2.1"),
             "language_model": language_model_names()[0], "image_classifier": safety.picture_classifier_names()[0]}
    return {name: value for name in Models.model_fields if (value := getattr(asked, name) or usual.get(name))}


def _usual(parameter: str, *words: str) -> str:
    """An official file that is there, else one whose name holds all the words, else the first official one."""
    folder = FOLDERS[parameter]
    files, official = model_names(folder), list(DOWNLOADS[folder])
    alike = [file for file in files if all(word in file.lower() for word in words)]
    return next(iter([*(file for file in official if file in files), *alike, *official]))


def missing_models(models: Mapping[str, str]) -> list[str]:
    """A sentence for each file that is not there, with where to get it."""
    return [missing_file(folder, models[name]) for name, folder in FOLDERS.items() if folder_paths.get_full_path(folder, models[name]) is None]


def missing_interpolators() -> list[str]:
    """A sentence for each interpolator without a file, with where to get it."""
    missing = []
    interpolation.interpolator_names()  # which tells 0.3.75 of their folder
    for name in INTERPOLATORS:
        try:
            interpolation.interpolator_path(name)
        except ValueError as error:
            missing.append(str(error))
    return missing
