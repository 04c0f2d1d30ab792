"""Models for the benchmarks of serving."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

THREADS = 2
"""Of ONNX Runtime, in replicas and without them."""
CLASSES = 12
TOLERANCE = 1e-5
"""By how much a probability may differ from plain ONNX Runtime's, for another batch size computes in another order."""


def export_model(folder: Path, base_model: str, side: int = 0) -> bytes:
    """A base model with random weights and a head of `CLASSES`; its speed is that of a trained one.

    Args:
        folder: for files on the way.
        base_model: of the catalogue.
        side: of its input, pixels; the base model's own when 0.
    """
    import torch

    from enxerto.vision.finetuning import Weights
    from enxerto.vision.specs import Task
    from enxerto.vision.torch.base_models import build_backbone, get_base_model
    from enxerto.vision.torch.classification.network import ClassifierHead, GraftedNetwork, ServedClassifier
    from enxerto.vision.torch.export import export
    from enxerto.vision.torch.weights import WeightsSources

    torch.set_num_threads(THREADS)
    facts = get_base_model(base_model).facts
    backbone, _ = build_backbone(base_model, Weights.NONE, WeightsSources())
    preprocess = replace(facts.preprocess, height=side, width=side) if side else facts.preprocess
    network = GraftedNetwork(backbone, ClassifierHead(facts.feature_dim, CLASSES), preprocess)
    path = folder / "model.onnx"
    export(
        ServedClassifier(network),
        path,
        task=Task.CLASSIFICATION,
        class_names=tuple(f"class-{index}" for index in range(CLASSES)),
        preprocess=preprocess,
        provenance={"base_model": base_model},
    )
    return path.read_bytes()


def variants(model: bytes, count: int) -> list[bytes]:
    """The model with so many different heads, so that answers tell which of them gave them."""
    found = []
    for seed in range(count):
        graph, generator = onnx.load_from_string(model), np.random.default_rng(seed)
        heads = [one for one in graph.graph.initializer if CLASSES in one.dims and len(one.dims) <= 2]
        assert heads
        for head in heads:
            values = 0.05 * generator.normal(size=head.dims).astype(np.float32)
            head.CopyFrom(numpy_helper.from_array(values, head.name))
        found.append(graph.SerializeToString())
    return found
