"""Engines that several methods share: gradients, the kernel over them, unlearning."""
