"""Image encoders: images as vectors, and how alike two images are by these."""

BUILT_IN = ("random-conv",)  # those that need no weights, and so are there for every problem
