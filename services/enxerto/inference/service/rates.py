"""How many images the callers of a project may send."""

import time
from dataclasses import dataclass

from enxerto.inference.errors import RateLimitedError
from enxerto.kernel.names import ProjectName


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled: float


class ProjectRates:
    """A token bucket for each project (RFC 2697's idea of a committed rate with a burst). Belongs to one event loop."""

    def __init__(self, images_per_s: float, burst_images: int) -> None:
        """Allow so many.

        Args:
            images_per_s: that a project gets for good; 0 is no limit.
            burst_images: that it may send at once after a pause. A larger request passes when the bucket is full, and
                those after it wait longer.
        """
        self._rate = images_per_s
        self._burst = burst_images
        self._buckets: dict[ProjectName, _Bucket] = {}

    def admit(self, project: ProjectName, images: int) -> None:
        """Take the images from the project's bucket.

        Raises:
            RateLimitedError: there are not so many left; says when there will be.
        """
        if not self._rate:
            return
        now = time.monotonic()
        bucket = self._buckets.setdefault(project, _Bucket(self._burst, now))
        bucket.tokens = min(self._burst, bucket.tokens + (now - bucket.filled) * self._rate)
        bucket.filled = now
        needed = min(images, self._burst)
        if bucket.tokens < needed:
            raise RateLimitedError(project, self._rate, (needed - bucket.tokens) / self._rate)
        bucket.tokens -= images
