"""A video without what ComfyUI writes into it: the workflow, and the prompt in words."""

from pathlib import Path

import av


def remove_tags(file: Path) -> None:
    """Write the file anew without its container's tags; pictures and their times are copied as they are."""
    plain = file.with_name(f"{file.name}.part")
    try:
        with av.open(file) as source, av.open(plain, "w", format="mp4", options={"movflags": "+faststart"}) as target:
            copies = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
            for packet in source.demux():
                if packet.dts is not None:
                    packet.stream = copies[packet.stream.index]
                    target.mux(packet)
        plain.replace(file)
    finally:
        plain.unlink(missing_ok=True)
