"""Engines that several methods share: features, projections, their kernel; unlearning, its levels, augmentation."""
