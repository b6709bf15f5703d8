"""The page made of rows: one HTML file that needs no network, its figures as files, and badges."""
