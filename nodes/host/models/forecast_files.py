"""Settings of `acceleration` that were measured for an expert: a JSON file beside its weights, which goes with the MODEL."""

import json
from pathlib import Path

from ...engine.sampling.forecast import ForecastSettings
from .memory import Model

SUFFIX = ".forecast.json"
MEASURED = "wan22_forecast"  # of the MODEL's attachments, which clones share


def settings_file(weights: Path) -> Path:
    """NAME.forecast.json beside NAME.safetensors."""
    return weights.with_suffix(SUFFIX)


def measured_beside(weights: Path) -> ForecastSettings | None:
    """The settings beside an expert's file, if there are any; ValueError with the file's name for settings out of range."""
    path = settings_file(weights)
    if not path.exists():
        return None
    try:
        return ForecastSettings(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"'{path.name}' beside the expert's file cannot be used: {error} Measure it again (python dev.py calibrate --save), "
                         "or delete it.") from error


def measured_settings(model: Model) -> ForecastSettings | None:
    settings: ForecastSettings | None = model.attachments.get(MEASURED)
    return settings
