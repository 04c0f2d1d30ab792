"""Between the probe and the tuned network (WiSE-FT: Wortsman et al. 2022, arXiv:2109.01903)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch

from enxerto.vision.torch.learner import Learner, Score

SHARES: Final = (0.25, 0.5, 0.75)
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


def choose(candidates: tuple[Candidate, ...]) -> Candidate:
    """The best score; of equal ones the smallest share."""
    best = candidates[0]
    for candidate in candidates[1:]:
        if candidate.score.beats(best.score):
            best = candidate
    return best
