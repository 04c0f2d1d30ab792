"""Networks to start from."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from enxerto.client import _converters, _results
from enxerto.client._calls import Progressed, Uploaded
from enxerto.client._runs import RunCalls
from enxerto.training.v1 import training_service_pb2

_CHUNK_BYTES = 2**20
_MEASURE_S = 1800.0


class BaseModelCalls(RunCalls):
    """Base models."""

    def base_models(self, search: str = "") -> Iterator[_results.BaseModel]:
        """The networks that a run may start from, by name: all but timm's, or those of all whose id contains a text."""
        request = training_service_pb2.ListBaseModelsRequest(search=search)
        return map(
            _converters.base_model, self._pages(self._stubs.training.ListBaseModels, request, "base_models", None)
        )

    def base_model(self, name: str) -> _results.BaseModel:
        """Read a base model: `resnet18`, `timm-resnet18-a1-in1k`."""
        request = training_service_pb2.GetBaseModelRequest(name=self._names.base_model(name))
        return _converters.base_model(self._call(self._stubs.training.GetBaseModel, request))

    def import_base_model(
        self, name: str, path: Path | str, *, timeout_s: float = 3600.0, uploaded: Uploaded | None = None
    ) -> _results.BaseModel:
        """Bring in the weights of a base model whose download is not possible; every later run uses them.

        Args:
            name: the base model.
            path: `.safetensors`, or the published `.pth`, which is known by its sha256.
            timeout_s: deadline of the upload.
            uploaded: told of the upload's progress.

        Raises:
            InvalidArgumentError: the file is not what the network needs; names what is missing or of another shape.
        """
        file = Path(path)
        size_bytes = file.stat().st_size
        with file.open("rb") as content:
            sha256 = hashlib.file_digest(content, "sha256").hexdigest()
        header = training_service_pb2.WeightsHeader(
            base_model=self._names.base_model(name), sha256=sha256, size_bytes=size_bytes
        )

        def messages() -> Iterator[training_service_pb2.ImportBaseModelWeightsRequest]:
            yield training_service_pb2.ImportBaseModelWeightsRequest(header=header)
            sent = 0
            with file.open("rb") as content:
                while chunk := content.read(_CHUNK_BYTES):
                    yield training_service_pb2.ImportBaseModelWeightsRequest(chunk=chunk)
                    sent += len(chunk)
                    if uploaded:
                        uploaded(sent, size_bytes)

        return _converters.base_model(self._call(self._stubs.training.ImportBaseModelWeights, messages, timeout_s))

    def recommend(
        self,
        data: _results.Snapshot | str,
        *,
        base_models: Sequence[str] = (),
        max_images: int = 0,
        progressed: Progressed | None = None,
        timeout_s: float = _MEASURE_S,
    ) -> _results.Ranking:
        """Probe base models on a snapshot's images and rank them by accuracy and cost, before GPU hours are spent.

        Args:
            data: a snapshot of a CLASSIFICATION dataset, its full name, or a dataset, whose newest snapshot is taken.
            base_models: which ones; all whose weights are there when empty.
            max_images: to probe with; 0 is the service's default.
            progressed: told how far it is.
            timeout_s: how long it may take.
        """
        request = training_service_pb2.RecommendBaseModelsRequest(
            parent=self._names.project,
            snapshot=self._snapshot_name(data),
            base_models=[self._names.base_model(name) for name in base_models],
            max_images=max_images,
        )
        send = self._stubs.training.RecommendBaseModels
        return _converters.ranking(self._measured(send, request, "ranking", progressed, timeout_s))
