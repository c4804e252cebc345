"""New frames between the frames of a clip: the networks, their files, and the stream that runs them."""
