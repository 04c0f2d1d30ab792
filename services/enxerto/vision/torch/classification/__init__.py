"""Classification: a new head on a pretrained backbone, which may be fine-tuned after it."""
