"""From latents to a file: the stream of frames behind a VIDEO, decoded, interpolated and saved as it is pulled."""
