"""How well deployments answer: what is observed, what callers say, and what is kept for labelling."""

import re
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

from enxerto.client import _converters, _results
from enxerto.client._answers import AnswerCalls
from enxerto.client._errors import NotFoundError
from enxerto.client._names import short
from enxerto.inference.v1 import quality_pb2, quality_service_pb2

_FEEDBACK_A_CALL = 1000
_ENDINGS = {b"\xff\xd8": ".jpg", b"\x89P": ".png", b"RI": ".webp", b"BM": ".bmp"}
_UNSAFE = re.compile(r"[^\w .-]|^[ .]+|[ .]+$")


class QualityCalls(AnswerCalls):
    """Quality in production."""

    def quality(self, deployment: str, *, window: timedelta = timedelta(days=7)) -> _results.Quality:
        """How well a deployment answers.

        Args:
            deployment: the deployment.
            window: feedback counts for answers of so long ago.
        """
        request = quality_service_pb2.GetDeploymentQualityRequest(deployment=self._names.deployment(deployment))
        request.window.FromTimedelta(window)
        return _converters.quality(self._call(self._stubs.quality.GetDeploymentQuality, request))

    def feedback(self, deployment: str, answers: Sequence[tuple[_results.Prediction, str]]) -> int:
        """Say what the true labels of answered images are; how many answers were right. What returns is stored.

        Args:
            deployment: the deployment that answered.
            answers: of `classify`, each with the true label.
        """
        name, correct = self._names.deployment(deployment), 0
        for start in range(0, len(answers), _FEEDBACK_A_CALL):
            feedback = [
                quality_service_pb2.Feedback(
                    prediction_id=prediction.prediction_id, image_index=prediction.image_index, label=label
                )
                for prediction, label in answers[start : start + _FEEDBACK_A_CALL]
            ]
            request = quality_service_pb2.SubmitFeedbackRequest(deployment=name, feedback=feedback)
            correct += self._call(self._stubs.quality.SubmitFeedback, request).correct_count
        return correct

    def feedback_by_id(self, deployment: str, prediction_id: str, label: str, *, image_index: int = 0) -> bool:
        """Say what the true label of one image is, by the id of its answer; whether the answer was right."""
        said = quality_service_pb2.Feedback(prediction_id=prediction_id, image_index=image_index, label=label)
        name = self._names.deployment(deployment)
        request = quality_service_pb2.SubmitFeedbackRequest(deployment=name, feedback=[said])
        return bool(self._call(self._stubs.quality.SubmitFeedback, request).correct_count)

    def sampling_policy(self, deployment: str) -> _results.SamplingPolicy:
        """Which images of a deployment are kept for labelling."""
        request = quality_service_pb2.GetSamplingPolicyRequest(deployment=self._names.deployment(deployment))
        return _converters.sampling_policy(self._call(self._stubs.quality.GetSamplingPolicy, request))

    def keep_samples(
        self,
        deployment: str,
        max_samples: int,
        *,
        uncertain_below: float = 0.0,
        drifted_beyond: float = 0.0,
        max_size_bytes: int = 0,
    ) -> _results.SamplingPolicy:
        """Keep uncertain and drifted images for labelling; the oldest make room for new ones.

        Args:
            deployment: the deployment.
            max_samples: images to keep; 0 keeps none and removes what was kept.
            uncertain_below: keep images whose confidence is below this.
            drifted_beyond: keep images so many times as far from the training images' mean as those themselves are.
            max_size_bytes: bytes to keep; 256 MiB when 0.
        """
        policy = quality_pb2.SamplingPolicy(
            deployment=self._names.deployment(deployment),
            max_samples=max_samples,
            max_size_bytes=max_size_bytes,
            uncertain_below=uncertain_below,
            drifted_beyond=drifted_beyond,
        )
        request = quality_service_pb2.UpdateSamplingPolicyRequest(policy=policy)
        return _converters.sampling_policy(self._call(self._stubs.quality.UpdateSamplingPolicy, request))

    def samples(self, deployment: str, limit: int | None = None) -> Iterator[_results.Sample]:
        """What a deployment has kept, the oldest first."""
        request = quality_service_pb2.ListSamplesRequest(parent=self._names.deployment(deployment))
        return map(_converters.sample, self._pages(self._stubs.quality.ListSamples, request, "samples", limit))

    def sample_content(self, name: str) -> bytes:
        """The encoded image of a sample, by its full name."""
        request = quality_service_pb2.DownloadSampleRequest(name=name)
        content: bytes = self._call(self._stubs.quality.DownloadSample, request).content
        return content

    def download_samples(self, deployment: str, folder: Path | str) -> list[Path]:
        """Write the kept images as `labelled/LABEL/ID.jpg` where feedback gave the label, and the others as
        `unlabelled/PREDICTED/ID.jpg` to be sorted by hand: `labelled` can be imported as a dataset.

        Characters that no folder's name should have are written as `%2F`. Samples that are gone meanwhile are left out.

        Args:
            deployment: the deployment.
            folder: to write under.
        """
        paths = []
        for sample in self.samples(deployment):
            try:
                content = self.sample_content(sample.name)
            except NotFoundError:
                # Newer ones have taken its room since the list was read.
                continue
            part, label = (
                ("labelled", sample.true_label) if sample.true_label else ("unlabelled", sample.predicted_label)
            )
            target = Path(folder) / part / _safe(label) / f"{short(sample.name)}{_ENDINGS.get(content[:2], '')}"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
            paths.append(target)
        return paths

    def delete_sample(self, name: str) -> None:
        """Remove a sample, by its full name."""
        self._call(self._stubs.quality.DeleteSample, quality_service_pb2.DeleteSampleRequest(name=name))


def _safe(label: str) -> str:
    """A label as the name of a folder, of no other label; labels come from callers and may hold anything."""
    return _UNSAFE.sub(lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode()), label) or "unknown"
