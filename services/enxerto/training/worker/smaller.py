"""The smaller graph that a run asks for, measured before it takes the place of the exported one."""

from pathlib import Path

from enxerto.training.domain import Metric
from enxerto.vision.finetuning import QuantizationMode
from enxerto.vision.onnx.quantization import CALIBRATION_IMAGES, check_loss, quantize
from enxerto.vision.onnx.session import OnnxModel
from enxerto.vision.specs import Split
from enxerto.vision.torch.recipe import Job, Recipe, Trained


def make_smaller(
    job: Job, recipe: Recipe, trained: Trained, model: OnnxModel, path: Path
) -> tuple[OnnxModel, tuple[Metric, ...]]:
    """Overwrite the exported file at `path` by a smaller one, when the run asks for it, and say what it costs.

    Returns:
        The model that is served from now on, and the task's own metric before and after, on the validation split.

    Raises:
        QuantizationLossError: it answers too much worse.
    """
    spec = job.spec.quantization
    if spec.mode is QuantizationMode.NONE:
        return model, ()
    split = Split.VAL if job.manifest.count(Split.VAL) else Split.TRAIN
    job.on_phase("exporting", 0, 0)
    before = recipe.evaluate(model.run, job, split, trained)
    smaller = path.with_suffix(".smaller.onnx")
    size_bytes = path.stat().st_size
    quantize(path, smaller, spec.mode, recipe.calibration_images(job, trained.preprocess, CALIBRATION_IMAGES))
    candidate = OnnxModel(smaller, threads=job.compute.threads)
    after = recipe.evaluate(candidate.run, job, split, trained)
    job.on_log(
        f"{spec.mode}: {size_bytes:,} to {smaller.stat().st_size:,} bytes, "
        f"{before.score_name} {before.score:.4f} to {after.score:.4f} on {split.value.lower()}"
    )
    check_loss(spec, before.score_name, before.score, after.score)
    smaller.replace(path)
    where = split.value.lower()
    return candidate, (
        Metric("score_before_quantization", before.score, where),
        Metric("score_after_quantization", after.score, where),
    )
