"""Engines that several methods share: features, projection, the kernel over them; unlearning with its levels and augmentation."""
