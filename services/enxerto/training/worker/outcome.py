"""What is made of a trained network: ONNX file, parity, smaller graph, measurements, report, and their result."""

import dataclasses
import json
import math
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from safetensors.torch import save_file

from enxerto.training.adapters import codec
from enxerto.training.adapters.object_store import StoredBlobs, put, result_key, store_errors
from enxerto.training.domain import Lineage, Metric, Parity, ResultArtifact, TrainingResult
from enxerto.training.worker.drawing import draw_report
from enxerto.training.worker.embedding_reference import measure_embeddings
from enxerto.training.worker.environment import describe_environment
from enxerto.training.worker.order import JobOrder, JobSpec
from enxerto.training.worker.smaller import make_smaller
from enxerto.vision.contracts import EMBEDDING
from enxerto.vision.embeddings import REFERENCE_FILE
from enxerto.vision.images import Float32Images
from enxerto.vision.onnx.golden import GOLDEN_FILE, make_golden, write_golden
from enxerto.vision.onnx.parity import Parity as MeasuredParity
from enxerto.vision.onnx.session import OnnxModel
from enxerto.vision.report import write_report
from enxerto.vision.specs import LabelMap, Split
from enxerto.vision.torch.export import check_parity, export, torch_network
from enxerto.vision.torch.recipe import Evaluation, Job, Predict, Recipe, Trained

_MODEL: Final = "model.onnx"
_PARITY_IMAGES: Final = 32
_MEDIA_TYPES: Final = {
    ".html": "text/html",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".json": "application/json",
}
_ROLES: Final = {".onnx": "MODEL", ".html": "REPORT", ".png": "REPORT"}


@dataclass(frozen=True, slots=True)
class _Exported:
    model: OnnxModel
    parity: MeasuredParity
    metrics: tuple[Metric, ...]


def store_outcome(order: JobOrder, spec: JobSpec, job: Job, recipe: Recipe, trained: Trained) -> None:
    """Export, compare, measure, draw, and store the artefacts and then the result that refers to them.

    Args:
        order: where to store.
        spec: what was asked for.
        job: as it was trained; its callbacks are told.
        recipe: of the task.
        trained: what came out.

    Raises:
        ExportError: the network cannot be exported.
        QuantizationLossError: the smaller graph that was asked for answers too much worse.
    """
    lineage = Lineage(
        snapshot_digest=spec.snapshot_digest,
        weights_digest=trained.weights_sha256,
        weights_source=trained.weights_source,
        licence=f"{job.facts.licence}: {job.facts.licence_note}",
    )
    provenance = _provenance(spec, lineage)
    split = job.manifest.held_out
    blobs = order.blobs()
    with tempfile.TemporaryDirectory(prefix="enxerto-outcome-") as scratch:
        folder, pictures = Path(scratch) / "version", Path(scratch) / "files"
        folder.mkdir()
        pictures.mkdir()
        exported = _export(job, recipe, trained, provenance, folder / _MODEL) if trained.served is not None else None
        job.on_phase("evaluating", 0, job.manifest.count(split))
        evaluation = recipe.evaluate(_predict(job, trained, exported), job, split, trained)
        _write_numbers(folder, trained, evaluation, split)
        if exported is not None and EMBEDDING.name in exported.model.output_names:
            reference = measure_embeddings(job, trained.preprocess, exported.model, split)
            (folder / REFERENCE_FILE).write_text(reference.to_json())
        report = draw_report(
            spec,
            job.manifest,
            job.blobs,
            trained,
            evaluation,
            provenance=provenance,
            environment=describe_environment(job.compute, job.where),
        )
        write_report(report, folder)
        for path in trained.files:
            shutil.copy(path, pictures / path.name)
        artifacts = tuple(_store(path, blobs) for path in sorted(folder.iterdir()))
        files = tuple(_store(path, blobs, "OTHER") for path in sorted(pictures.iterdir()))
    result = TrainingResult(
        artifacts=artifacts if exported else (),
        label_map=LabelMap(trained.class_names),
        preprocess=trained.preprocess,
        inputs=exported.model.card.inputs if exported else (),
        outputs=exported.model.card.outputs if exported else (),
        metrics=(*_metrics(trained, evaluation, split), *(exported.metrics if exported else ())),
        parity=_parity(exported.parity) if exported else None,
        lineage=lineage,
        stop_reason=trained.stop_reason,
        files=files if exported else (*files, *artifacts),
    )
    key = result_key(order.uid, order.attempt)
    with store_errors(key):
        put(order.store(), key, json.dumps(codec.result_to_json(result)).encode())


def _provenance(spec: JobSpec, lineage: Lineage) -> dict[str, str]:
    finetune = spec.run.finetune
    return {
        "training_run": spec.name,
        "snapshot": str(spec.run.snapshot),
        "snapshot_digest": spec.snapshot_digest,
        "base_model": str(spec.run.base_model),
        **({"encoder": finetune.encoder} if finetune.encoder else {}),
        "weights_digest": lineage.weights_digest,
        "weights_source": lineage.weights_source,
        "licence": lineage.licence,
    }


def _export(job: Job, recipe: Recipe, trained: Trained, provenance: dict[str, str], path: Path) -> _Exported:
    assert trained.served is not None
    job.on_phase("exporting", 0, 0)
    quantization = job.spec.quantization
    export(
        trained.served,
        path,
        task=recipe.task,
        class_names=trained.class_names,
        preprocess=trained.preprocess,
        provenance={**provenance, **trained.notes, "quantization": quantization.mode.value},
    )
    images = recipe.calibration_images(job, trained.preprocess, _PARITY_IMAGES)
    model = OnnxModel(path, threads=job.compute.threads)
    parity = check_parity(trained.served, model, images)
    model, metrics = make_smaller(job, recipe, trained, model, path)
    write_golden(make_golden(recipe.task, model.run, images), path.with_name(GOLDEN_FILE))
    return _Exported(model, parity, metrics)


def _predict(job: Job, trained: Trained, exported: _Exported | None) -> Predict:
    if exported is None or trained.served is None:
        return _nothing_answers
    if job.compute.device == "cpu" or exported.metrics:
        return exported.model.run
    # torch has the GPU, and ONNX Runtime computes on the CPU here; they agree, as parity has just shown.
    return torch_network(trained.served, job.facts.task, job.compute.device)


def _nothing_answers(images: Float32Images) -> Any:
    raise ValueError(f"the run has left nothing that could answer {len(images)} images")


def _write_numbers(folder: Path, trained: Trained, evaluation: Evaluation, split: Split) -> None:
    if trained.network is not None:
        # For further training, and for anyone who would rather load torch than ONNX. Copies: tied tensors share memory.
        tensors = {name: tensor.detach().clone().contiguous() for name, tensor in trained.network.state_dict().items()}
        save_file(tensors, folder / "weights.safetensors")
    numbers = {
        "split": split.value.lower(),
        "score": evaluation.score,
        "score_name": evaluation.score_name,
        "metrics": [dataclasses.asdict(one) for one in evaluation.metrics],
        **evaluation.detail,
        "notes": dict(trained.notes),
        "stop_reason": trained.stop_reason,
        "best_epoch": trained.best,
        "history": [
            {**dataclasses.asdict(one), "phase": one.phase.value, "metrics": dict(one.metrics)}
            for one in trained.history
        ],
    }
    (folder / "metrics.json").write_text(json.dumps(_plain(numbers), indent=1, allow_nan=False))


def _plain(value: Any) -> Any:
    """JSON values without NaN and infinities, which JSON does not have: null."""
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _metrics(trained: Trained, evaluation: Evaluation, split: Split) -> tuple[Metric, ...]:
    where = split.value.lower()
    measured = [Metric(one.name, one.value, where, one.class_name) for one in evaluation.metrics]
    if 0 <= trained.best < len(trained.history):
        kept = trained.history[trained.best]
        measured.append(Metric("best_epoch_loss", kept.val_loss, "val"))
        # STYLE's own metric is its loss, of which the score is the negative.
        if evaluation.score_name != "loss":
            measured.append(Metric(f"best_epoch_{evaluation.score_name}", kept.score, "val"))
    # A class that the split does not hold has no average precision, which is no number to register.
    return tuple(one for one in measured if math.isfinite(one.value))


def _parity(measured: MeasuredParity) -> Parity:
    # An export that answers with NaN is to be quarantined, not refused for its difference.
    difference = min(measured.max_abs_difference, sys.float_info.max)
    return Parity(difference, measured.agreement, measured.samples, measured.batch_sizes)


def _store(path: Path, blobs: StoredBlobs, role: str | None = None) -> ResultArtifact:
    return ResultArtifact(
        filename=path.name,
        role=role or _ROLES.get(path.suffix, "OTHER"),
        sha256=blobs.put(path),
        size_bytes=path.stat().st_size,
        media_type=_MEDIA_TYPES.get(path.suffix, "application/octet-stream"),
    )
