"""Figures: drawn once as marks, written as SVG for the page and files, or as PDF."""
