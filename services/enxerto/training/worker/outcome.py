"""Everything that is made of a trained network: ONNX file, parity, report and the result that refers to them."""

import json
import tempfile
from pathlib import Path

import obstore
from safetensors.torch import save_file

from enxerto.training.adapters import codec
from enxerto.training.adapters.object_store import StoredBlobs, result_key, store_errors
from enxerto.training.domain import Lineage, Metric, Parity, ResultArtifact, TrainingResult
from enxerto.training.worker.order import IMPORTED, JobOrder, JobSpec
from enxerto.vision.catalogue import BaseModelFacts
from enxerto.vision.images import UInt8Image, load
from enxerto.vision.onnx.session import OnnxClassifier
from enxerto.vision.report import EpochPoint, PredictedImage, Report, choose_pictures, write_report
from enxerto.vision.snapshots import BlobSource, Manifest, read_images
from enxerto.vision.specs import LabelMap, PreprocessSpec, Split
from enxerto.vision.torch.data import ImageArray
from enxerto.vision.torch.evaluate import Evaluation
from enxerto.vision.torch.export import check_parity, export
from enxerto.vision.torch.finetune import FinetuneResult

_MEDIA_TYPES = {
    ".onnx": "application/octet-stream",
    ".safetensors": "application/octet-stream",
    ".html": "text/html",
    ".png": "image/png",
    ".json": "application/json",
}
_ROLES = {".onnx": "MODEL", ".html": "REPORT", ".png": "REPORT"}


def store_outcome(
    order: JobOrder,
    spec: JobSpec,
    facts: BaseModelFacts,
    manifest: Manifest,
    trained: FinetuneResult,
    *,
    evaluation: Evaluation,
    split: Split,
    val: ImageArray,
    threads: int,
) -> None:
    """Export, compare, draw, and store the artefacts and then the result.

    Args:
        order: where to store.
        spec: what was asked for.
        facts: of the base model.
        manifest: of the snapshot.
        trained: the network and its history.
        evaluation: of the held-out split.
        split: which split that is.
        val: this worker's validation images, for the comparison.
        threads: of ONNX Runtime.
    """
    blobs = order.blobs()
    labels = LabelMap(manifest.class_names)
    lineage = Lineage(
        snapshot_digest=spec.snapshot_digest,
        weights_digest=trained.weights_sha256 or "",
        weights_source=trained.weights_source or "none: random numbers from the seed",
        licence=f"{facts.licence}: {facts.licence_note}",
    )
    provenance = {
        "training_run": spec.name,
        "snapshot": str(spec.run.snapshot),
        "snapshot_digest": spec.snapshot_digest,
        "base_model": str(spec.run.base_model),
        "weights_digest": lineage.weights_digest,
        "weights_source": lineage.weights_source,
        "licence": lineage.licence,
        "batch_norm": trained.batch_norm,
    }
    with tempfile.TemporaryDirectory(prefix="enxerto-outcome-") as scratch:
        folder = Path(scratch)
        model = folder / "model.onnx"
        export(trained.network, model, labels=labels, preprocess=facts.preprocess, provenance=provenance)
        parity = check_parity(trained.network, model, val, threads=threads)
        card = OnnxClassifier(model).card
        # For further training, and for anyone who would rather load torch than ONNX.
        tensors = {name: tensor.contiguous() for name, tensor in trained.network.state_dict().items()}
        save_file(tensors, folder / "weights.safetensors")
        (folder / "metrics.json").write_text(json.dumps(dict(evaluation.metrics.to_json()), indent=1))
        write_report(
            _report(
                spec,
                manifest,
                trained,
                evaluation=evaluation,
                split=split,
                blobs=blobs,
                preprocess=facts.preprocess,
                provenance=provenance,
            ),
            folder,
        )
        artifacts = tuple(_store(path, blobs) for path in sorted(folder.iterdir()))
    result = TrainingResult(
        artifacts=artifacts,
        label_map=labels,
        preprocess=facts.preprocess,
        inputs=card.inputs,
        outputs=card.outputs,
        metrics=_metrics(trained, evaluation, split),
        parity=Parity(parity.max_abs_difference, parity.agreement, parity.samples, parity.batch_sizes),
        lineage=lineage,
        stop_reason=_stop_reason(trained),
    )
    key = result_key(order.uid, order.attempt)
    with store_errors(key):
        obstore.put(order.store(), key, json.dumps(codec.result_to_json(result)).encode())


def _store(path: Path, blobs: StoredBlobs) -> ResultArtifact:
    return ResultArtifact(
        filename=path.name,
        role=_ROLES.get(path.suffix, "OTHER"),
        sha256=blobs.put(path),
        size_bytes=path.stat().st_size,
        media_type=_MEDIA_TYPES[path.suffix],
    )


def _metrics(trained: FinetuneResult, evaluation: Evaluation, split: Split) -> tuple[Metric, ...]:
    measured, where = evaluation.metrics, split.value.lower()
    return (
        Metric("accuracy", measured.accuracy, where),
        Metric("precision_macro", measured.precision, where),
        Metric("recall_macro", measured.recall, where),
        Metric("f1_macro", measured.f1, where),
        Metric("best_epoch_loss", trained.val_loss, "val"),
        Metric("best_epoch_accuracy", trained.val_accuracy, "val"),
    )


def _stop_reason(trained: FinetuneResult) -> str:
    last = trained.history[-1]
    return "EARLY_STOPPING" if last.epoch < last.epochs else "EPOCHS"


def _report(
    spec: JobSpec,
    manifest: Manifest,
    trained: FinetuneResult,
    *,
    evaluation: Evaluation,
    split: Split,
    blobs: BlobSource,
    preprocess: PreprocessSpec,
    provenance: dict[str, str],
) -> Report:
    rows = choose_pictures(evaluation.probabilities, evaluation.labels)
    pictures = _pictures(rows, manifest, blobs, split, preprocess)
    predicted, confidence = evaluation.probabilities.argmax(axis=1), evaluation.probabilities.max(axis=1)
    history = tuple(
        EpochPoint(one.phase.value, one.train_loss, one.val_loss, one.val_accuracy, one.learning_rate)
        for one in trained.history
    )
    best = next(
        (
            position
            for position, one in enumerate(trained.history)
            if (one.phase, one.epoch) == (trained.best_phase, trained.best_epoch)
        ),
        -1,
    )
    return Report(
        title=spec.name,
        class_names=manifest.class_names,
        history=history,
        best=best,
        metrics=evaluation.metrics,
        split=split.value.lower(),
        pictures=tuple(
            PredictedImage(pictures[row], int(evaluation.labels[row]), int(predicted[row]), float(confidence[row]))
            for row in rows
        ),
        provenance=provenance,
    )


def _pictures(
    rows: tuple[int, ...], manifest: Manifest, blobs: BlobSource, split: Split, preprocess: PreprocessSpec
) -> dict[int, UInt8Image]:
    """The chosen rows of a split as the network saw them, each read again: no worker holds the whole split."""
    wanted = set(rows)
    found: dict[int, UInt8Image] = {}
    for row, image in enumerate(read_images(manifest, blobs, split)):
        if row in wanted:
            found[row] = load(image.data, preprocess, IMPORTED)
    return found
