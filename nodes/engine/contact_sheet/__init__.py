"""Contact sheets: frames of several videos on one picture, numbered and captioned."""
