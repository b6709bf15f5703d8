"""A folder that diffusers wrote, as a problem: what is in it, its text encoder, and images beside it."""
