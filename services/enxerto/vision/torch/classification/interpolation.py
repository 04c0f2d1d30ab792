"""Between the probe and the tuned network (WiSE-FT: Wortsman et al. 2022, arXiv:2109.01903)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch

from enxerto.vision.torch.learner import Learner, Score

SHARES: Final = (0.25, 0.5, 0.75)
_CONVINCING: Final = 2
_MIDDLE_WORTH: Final = 2.0
State = Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Candidate:
    """Weights on the line from the start (share 0) to what tuning ended with (share 1), and their validation score."""

    share: float
    score: Score


def mix(start: State, tuned: State, share: float) -> dict[str, torch.Tensor]:
    """(1 - share) x start + share x tuned, of every floating-point tensor; others are the tuned ones."""
    return {
        name: torch.lerp(start[name], tensor, share) if tensor.is_floating_point() else tensor
        for name, tensor in tuned.items()
    }


def score_between(learner: Learner, start: State, tuned: State) -> tuple[Candidate, ...]:
    """Scores of the points between; the learner's network holds the tuned weights afterwards."""
    found = []
    for share in SHARES:
        learner.network.load_state_dict(mix(start, tuned, share))
        found.append(Candidate(share, learner.validate()))
    learner.network.load_state_dict(dict(tuned))
    return tuple(found)


def choose(candidates: Sequence[Candidate], images: int) -> Candidate:
    """What is kept, by the validation split's number of images.

    The start, unless tuning gave at least two more right answers: one more says next to nothing on a split of a dozen
    images, and is nothing on a large one. Of the points that did, the one with the most right answers, where the
    middle counts as if it had two more and the tuned end as none: WiSE-FT found the middle good without any choice
    (section 5). Equal ones: the lowest loss, then the smallest share.

    Args:
        candidates: the start first.
        images: that the scores are of.
    """
    start, *tuned = candidates
    # In whole answers, because scores are quotients that rounding makes unequal.
    least = round(start.score.value * images) + _CONVINCING
    able = [one for one in tuned if math.isfinite(one.score.loss) and round(one.score.value * images) >= least]

    def worth(one: Candidate) -> tuple[float, float, float]:
        middling = _MIDDLE_WORTH * (1 - abs(2 * one.share - 1))
        return round(one.score.value * images) + middling, -one.score.loss, -one.share

    return max(able, key=worth, default=start)
