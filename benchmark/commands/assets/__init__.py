"""Commands about what tasks are made of: ground truth, and datasets."""
