"""Video: frame sizes and the MP4 writer."""
