"""Answers of the vision service, written."""

from collections.abc import Sequence

import numpy as np

from enxerto.inference.domain import PictureAnswer, Prediction, PredictionId, Segment
from enxerto.inference.v1 import vision_pb2, vision_service_pb2
from enxerto.kernel.names import DeploymentName
from enxerto.runtime.timestamps import duration
from enxerto.vision.contracts import EMBEDDING

_PNG = "image/png"


def classification_to_proto(
    name: DeploymentName, prediction: Prediction, top_k: int
) -> vision_service_pb2.ClassifyResponse:
    """The most likely classes of each image, from probabilities of shape (items, classes)."""
    labels = prediction.version.labels
    rows = prediction.tensor("probabilities").values
    order = np.argsort(-rows, axis=1, kind="stable")[:, :top_k]
    results = [
        vision_pb2.Classification(
            categories=[
                vision_pb2.Category(label=labels[index], index=index, probability=row[index])
                for index in map(int, indices)
            ]
        )
        for row, indices in zip(rows, order, strict=True)
    ]
    best = tuple(int(indices[0]) for indices in order)
    said = PredictionId(prediction.version.name, prediction.identity, prediction.time, best)
    return vision_service_pb2.ClassifyResponse(
        model_version=str(prediction.version.name),
        results=results,
        timings=_timings(prediction),
        prediction_id=said.encode(name),
    )


def detection_to_proto(
    prediction: Prediction, score_threshold: float | None, max_objects: int
) -> vision_service_pb2.DetectResponse:
    """The objects of each image, highest score first.

    Args:
        prediction: boxes (n, 4) in picture pixels, scores (n), classes (n) and accepted (n) of each image.
        score_threshold: least score; None takes those that reach the version's own threshold of their class.
        max_objects: of each image; 0 is all.
    """
    labels = prediction.version.labels
    results = [_detection(picture, labels, score_threshold, max_objects) for picture in prediction.pictures]
    return vision_service_pb2.DetectResponse(
        model_version=str(prediction.version.name), results=results, timings=_timings(prediction)
    )


def _detection(
    picture: PictureAnswer, labels: Sequence[str], score_threshold: float | None, max_objects: int
) -> vision_pb2.Detection:
    boxes, scores, classes, accepted = (picture.tensor(name).of_one for name in _DETECTION)
    # The graph's float32 scores are compared with the float32 of the request.
    wanted = accepted if score_threshold is None else scores >= np.float32(score_threshold)
    kept = np.flatnonzero(wanted)
    kept = kept[np.argsort(-scores[kept], kind="stable")]
    if max_objects:
        kept = kept[:max_objects]
    return vision_pb2.Detection(
        objects=[
            vision_pb2.DetectedObject(
                box=vision_pb2.Box(x_min=x_min, y_min=y_min, x_max=x_max, y_max=y_max),
                label=labels[index],
                index=index,
                score=score,
            )
            for (x_min, y_min, x_max, y_max), index, score in zip(
                boxes[kept].tolist(), classes[kept].tolist(), scores[kept].tolist(), strict=True
            )
        ]
    )


_DETECTION = ("boxes", "scores", "classes", "accepted")


def segmentation_to_proto(prediction: Prediction) -> vision_service_pb2.SegmentResponse:
    """The mask of each image, in the form that was asked for."""
    labels = prediction.version.labels
    results = [
        vision_pb2.Segmentation(
            width=picture.width,
            height=picture.height,
            png=next((tensor.content for tensor in picture.tensors if tensor.name == "classes"), b""),
            segments=[_segment(segment, labels) for segment in picture.segments],
            confidence=float(picture.tensor("confidence").of_one[0]),
        )
        for picture in prediction.pictures
    ]
    return vision_service_pb2.SegmentResponse(
        model_version=str(prediction.version.name), results=results, timings=_timings(prediction)
    )


def _segment(segment: Segment, labels: Sequence[str]) -> vision_pb2.Segment:
    return vision_pb2.Segment(
        label=labels[segment.index],
        index=segment.index,
        pixel_count=segment.pixel_count,
        rle=segment.rle,
        polygons=[vision_pb2.Polygon(points=outline.points, hole=outline.hole) for outline in segment.outlines],
    )


def stylized_to_proto(prediction: Prediction) -> vision_service_pb2.StylizeResponse:
    """The painted pictures."""
    results = [
        vision_pb2.StylizedImage(
            content=picture.tensor("pictures").content, media_type=_PNG, width=picture.width, height=picture.height
        )
        for picture in prediction.pictures
    ]
    return vision_service_pb2.StylizeResponse(
        model_version=str(prediction.version.name), results=results, timings=_timings(prediction)
    )


def embeddings_to_proto(prediction: Prediction) -> vision_service_pb2.EmbedResponse:
    """The embeddings, of shape (items, dimension)."""
    rows = prediction.tensor(EMBEDDING.name).values
    return vision_service_pb2.EmbedResponse(
        model_version=str(prediction.version.name),
        results=[vision_pb2.Embedding(values=row) for row in rows.tolist()],
        timings=_timings(prediction),
        dimension=rows.shape[1],
    )


def _timings(prediction: Prediction) -> vision_pb2.Timings:
    timing = prediction.timing
    return vision_pb2.Timings(
        queue=duration(timing.queue_s),
        decode=duration(timing.decode_s),
        compute=duration(timing.compute_s),
        encode=duration(timing.encode_s),
        cached=timing.cached,
    )
