"""A package, so that its tests share one page: pytest's scope of that name."""
