"""Images, datasets, networks and their export. Only `enxerto.vision.torch` imports torch."""
