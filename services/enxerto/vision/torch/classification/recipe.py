"""How classification is trained and measured."""

from __future__ import annotations

from typing import Final

import numpy as np

from enxerto.vision.images import Float32Images, load, to_batch
from enxerto.vision.snapshots import read_samples
from enxerto.vision.specs import PreprocessSpec, Split, Task
from enxerto.vision.torch.classification.evaluation import evaluate
from enxerto.vision.torch.classification.training import ClassificationRun
from enxerto.vision.torch.recipe import Evaluation, Job, Predict, Trained


class ClassificationRecipe:
    """A new head on a pretrained backbone, which is fine-tuned after it if asked.

    FEATURE_EXTRACTION trains a head on the frozen backbone's features, which are computed once, or once an epoch with
    augmentation. FINE_TUNE does that first and then trains the last stages together with the head: fine-tuning from a
    random head distorts good features (Kumar et al. 2022, arXiv:2202.10054). The head's result stays a candidate, as
    do the points between both (Wortsman et al. 2022, arXiv:2109.01903). See docs/transfer-recipes.md.
    """

    task: Final = Task.CLASSIFICATION

    def train(self, job: Job) -> Trained:
        """Train; called on every worker at once. See `Recipe.train` for what it raises."""
        return ClassificationRun(job).run()

    def evaluate(self, predict: Predict, job: Job, split: Split, trained: Trained) -> Evaluation:
        """Accuracy, precision, recall, F1, confusion and calibration of a whole split."""
        return evaluate(predict, job, split, trained)

    def calibration_images(self, job: Job, preprocess: PreprocessSpec, count: int) -> Float32Images:
        """(n, 3, H, W) float32 training images in [0, 1], at most `count`, drawn with the seed."""
        total = job.manifest.count(Split.TRAIN)
        rows = np.random.default_rng(job.spec.seed).choice(total, min(count, total), replace=False)
        wanted = set(rows.tolist())
        samples = enumerate(read_samples(job.manifest, job.blobs, Split.TRAIN))
        return to_batch([load(one.data, preprocess, job.limits) for row, one in samples if row in wanted])
