"""What models say of images."""

from enxerto.client import _results as results
from enxerto.client._converters.shared import seconds
from enxerto.inference.v1 import vision_pb2, vision_service_pb2


def predictions(message: vision_service_pb2.ClassifyResponse) -> list[results.Prediction]:
    """Convert the answers to one request, in the order of its images."""
    spent = _timings(message.timings)
    return [_prediction(result, message, index, spent) for index, result in enumerate(message.results)]


def _timings(spent: vision_pb2.Timings) -> results.Timings:
    queue_s, decode_s, compute_s, encode_s = map(seconds, (spent.queue, spent.decode, spent.compute, spent.encode))
    return results.Timings(queue_s, decode_s, compute_s, encode_s, spent.cached)


def _prediction(
    result: vision_pb2.Classification,
    message: vision_service_pb2.ClassifyResponse,
    index: int,
    timings: results.Timings,
) -> results.Prediction:
    categories = tuple(results.Category(item.label, item.index, item.probability) for item in result.categories)
    best = categories[0]
    return results.Prediction(
        best.label, best.probability, categories, message.model_version, timings, message.prediction_id, index
    )


def embeddings(message: vision_service_pb2.EmbedResponse) -> list[results.Embedding]:
    """Convert the answers to one request, in the order of its images."""
    spent = _timings(message.timings)
    return [results.Embedding(tuple(one.values), message.model_version, spent) for one in message.results]


def detections(message: vision_service_pb2.DetectResponse) -> list[results.Detection]:
    """Convert the answers to one request, in the order of its images."""
    spent = _timings(message.timings)
    return [
        results.Detection(
            tuple(
                results.DetectedObject(
                    one.label,
                    one.index,
                    one.score,
                    results.Box(one.box.x_min, one.box.y_min, one.box.x_max, one.box.y_max),
                )
                for one in result.objects
            ),
            message.model_version,
            spent,
        )
        for result in message.results
    ]


def segmentations(message: vision_service_pb2.SegmentResponse) -> list[results.Segmentation]:
    """Convert the answers to one request, in the order of its images."""
    spent = _timings(message.timings)
    return [
        results.Segmentation(
            width=result.width,
            height=result.height,
            segments=tuple(map(_segment, result.segments)),
            confidence=result.confidence,
            png=result.png,
            model_version=message.model_version,
            timings=spent,
        )
        for result in message.results
    ]


def _segment(message: vision_pb2.Segment) -> results.Segment:
    polygons = tuple(
        results.Polygon(tuple(zip(one.points[::2], one.points[1::2], strict=True)), one.hole)
        for one in message.polygons
    )
    return results.Segment(message.label, message.index, message.pixel_count, message.rle, polygons)


def stylized(message: vision_service_pb2.StylizeResponse) -> list[results.StylizedImage]:
    """Convert the answers to one request, in the order of its images."""
    spent = _timings(message.timings)
    return [
        results.StylizedImage(
            result.width, result.height, result.media_type, result.content, message.model_version, spent
        )
        for result in message.results
    ]
