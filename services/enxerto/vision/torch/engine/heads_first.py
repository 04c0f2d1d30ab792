"""The phases of tasks whose heads cannot be trained on cached features."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from enxerto.vision.finetuning import Strategy
from enxerto.vision.torch.engine.attempt import Attempt
from enxerto.vision.torch.engine.budget import StopReason
from enxerto.vision.torch.engine.fitting import Ahead, Fitted, fit
from enxerto.vision.torch.engine.state import Before, read_before, score_from_json, score_to_json
from enxerto.vision.torch.learner import Learner
from enxerto.vision.torch.progress import Phase
from enxerto.vision.torch.recipe import Job

_TUNED_STEP: Final = 1.6
"""What a step costs with the whole backbone in it, by what one costs with the heads alone.

Roughly: of the CPU time of five networks over EfficientNet-Lite0 it was 1.1 (Faster R-CNN) to 2.0 (DeepLabV3+).
"""


def fit_heads_first(learner: Learner, job: Job, attempt: Attempt) -> Fitted:
    """Train the heads, and with FINE_TUNE the stages with them afterwards. Called on every worker at once.

    FINE_TUNE begins as FEATURE_EXTRACTION with the same spec would, to the last bit, and what that gave stays a
    candidate: so it never ends below it on the validation split (Kumar et al. 2022, arXiv:2202.10054). Each phase has
    the spec's epochs; the budget is of both. When the first phase uses it up, or reaches the target, it is all.

    Returns:
        Of both phases together: `history` has all epochs and `best_epoch` counts through them.

    Raises:
        TrainingDivergedError: as `fit`, of the heads.
    """
    spec = job.spec
    stored = attempt.stored
    if stored is not None and stored.phase == Phase.FINE_TUNE.value:
        return _tune(learner, job, attempt, read_before(stored))
    frozen = replace(job, spec=replace(spec, strategy=Strategy.FEATURE_EXTRACTION)) if spec.tunes else job
    ahead = _tuning_s(spec.epochs) if spec.tunes else None
    heads = fit(learner, frozen, attempt, phase=Phase.TRAIN, epochs=spec.epochs, trains_backbone=False, ahead=ahead)
    if not spec.tunes or heads.stop_reason in (StopReason.MAX_DURATION, StopReason.TARGET_SCORE):
        return heads
    meta = {"score": score_to_json(heads.best), "best_epoch": heads.best_epoch, "notes": dict(heads.notes)}
    return _tune(learner, job, attempt, Before(heads.history, meta))


def _tuning_s(epochs: int) -> Ahead:
    """Seconds of the second phase by those of an epoch of the first. Its own first epoch replaces the guess."""
    return lambda train_s, validate_s: epochs * (_TUNED_STEP * train_s + validate_s)


def _tune(learner: Learner, job: Job, attempt: Attempt, before: Before) -> Fitted:
    start, best_of_heads = score_from_json(before.meta["score"]), int(before.meta["best_epoch"])
    assert start is not None
    tuned = fit(
        learner,
        job,
        attempt,
        phase=Phase.FINE_TUNE,
        epochs=job.spec.epochs,
        trains_backbone=True,
        start=start,
        before=before,
    )
    # Of batch norm only what the second phase did with it counts.
    said = {name: text for name, text in before.meta.get("notes", {}).items() if name != "batch_norm"}
    earlier = {f"heads_{name}": text for name, text in said.items()}
    had = f"{start.value:.4f} of the validation split right before tuning"
    kept = "what tuning gave" if tuned.best_epoch else "the heads on the frozen backbone: tuning gave nothing better"
    return replace(
        tuned,
        history=(*before.history, *tuned.history),
        best_epoch=len(before.history) + tuned.best_epoch if tuned.best_epoch else best_of_heads,
        notes={**earlier, **tuned.notes, "heads": had, "kept": kept},
    )
