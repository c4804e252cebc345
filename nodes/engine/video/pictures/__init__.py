"""Videos written as pictures: animated WebP and GIF, and sequences of PNG and JPEG files."""
