"""A miniature Wan 2.2 that we train ourselves: scenes, the judge, training, export and evaluation."""
