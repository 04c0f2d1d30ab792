"""A small snapshot out of a large one: what is measured before a run."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping

from enxerto.vision.blobs import BlobSink, BlobSource
from enxerto.vision.datasets.samples import StoredSample
from enxerto.vision.snapshots import Manifest, read_samples, write_samples
from enxerto.vision.specs import Split


def write_subset(manifest: Manifest, source: BlobSource, sink: BlobSink, most: Mapping[Split, int]) -> Manifest:
    """Store about `most` samples of each split as a snapshot of their own, in bounded memory.

    Spread evenly over the split and stratified: a class keeps its share, and at least one sample. A split that `most`
    does not name stays empty. The statistics are still those of the whole.

    Raises:
        DataLossError: a shard is missing or damaged.
    """

    def chosen(split: Split) -> Iterator[StoredSample]:
        total = manifest.count(split)
        share = min(1.0, most.get(split, 0) / total) if total else 0.0
        if share == 0:
            return
        seen: dict[int | None, int] = defaultdict(int)
        for sample in read_samples(manifest, source, split):
            label = sample.annotation.label
            before, seen[label] = seen[label], seen[label] + 1
            if math.ceil(before * share) < math.ceil(seen[label] * share):
                yield sample

    subset, _ = write_samples(
        chosen, sink, task=manifest.task, class_names=manifest.class_names, statistics=manifest.statistics
    )
    return subset
