"""Engines that several methods share: features, projection, the kernel over them, unlearning."""
