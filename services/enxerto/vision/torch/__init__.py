"""Everything that needs torch: backbones, fine-tuning, evaluation and export."""
