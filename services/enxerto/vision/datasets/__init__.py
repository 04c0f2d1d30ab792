"""Labelled images: their formats, their checks and their splits."""
