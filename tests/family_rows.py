"""One row for each base model of the catalogue, and for some encoders: what a small run of it needs."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from enxerto.training.v1 import training_run_pb2
from enxerto.vision.catalogue import BaseModelFacts, get_facts, list_facts
from enxerto.vision.specs import Task

LITE0 = "efficientnet_lite0"

FAST = {
    Task.DETECTION: "ssdlite",
    Task.SEGMENTATION: "unet",
    Task.STYLE: "fast_style",
}
"""The families that protect main, beside classification: that is the loop of tests/e2e/test_loop.py."""

OTHER_ENCODERS = (
    ("unet", "resnet18"),
    ("deeplabv3plus", "timm_resnet10t"),
    ("lraspp", "mobilenet_v3_small"),
    ("ssdlite", "resnet18"),
    ("fasterrcnn", "mobilenet_v3_large"),
    ("fast_style", "resnet18"),
)
"""With random weights: those of Lite0 alone come with the installation."""

TIMM = "timm_resnet10t"

_SIDES: Mapping[Task, int] = {Task.CLASSIFICATION: 64, Task.DETECTION: 96, Task.SEGMENTATION: 64, Task.STYLE: 64}


@dataclass(frozen=True)
class Run:
    """What differs from the run of every other row.

    Attributes:
        image_size: pixels; 0 is the base model's own.
        epochs: of the run.
        options: further fields of the training spec.
        least_score: of the answers to held-out pictures, for runs that learn something: accuracy, or mean IoU.
    """

    image_size: int | None = None
    epochs: int = 1
    options: Mapping[str, object] = field(default_factory=dict)
    least_score: float | None = None


OVERRIDES: Mapping[str, Run] = {
    # Three shapes of a colour each: chance is 0.33.
    LITE0: Run(epochs=8, least_score=0.7),
    # Background everywhere would be 0.3.
    "unet": Run(epochs=8, least_score=0.4),
    "vit_b_16": Run(image_size=0),
    "ssd300_vgg16": Run(image_size=300),
    **{
        name: Run(options={"style": training_run_pb2.StyleOptions(steps=5)})
        for name in ("gatys", "gatys_vgg16", "gatys_vgg19")
    },
}
"""By the catalogue's names."""


@dataclass(frozen=True)
class Family:
    """One row.

    Attributes:
        facts: of the base model.
        encoder: the catalogue's name of the backbone; empty where the base model has its own.
        run: what is asked of it.
    """

    facts: BaseModelFacts
    encoder: str
    run: Run

    @property
    def task(self) -> Task:
        """The base model's."""
        return self.facts.task

    @property
    def id(self) -> str:
        """Of the test."""
        return f"{self.task.lower()}-{self.resource_id.removeprefix('e2e-')}"

    @property
    def resource_id(self) -> str:
        """Of model and deployment."""
        on = f"-on-{self.encoder}" if self.encoder not in ("", LITE0) else ""
        return f"e2e-{self.facts.name}{on}".replace("_", "-")

    @property
    def is_fast(self) -> bool:
        """Whether it protects main."""
        return FAST.get(self.task) == self.facts.name and self.encoder in ("", LITE0)

    @property
    def makes_version(self) -> bool:
        """Whether something is left to serve: Gatys' method leaves pictures."""
        return not self.facts.name.startswith("gatys")

    @property
    def image_size(self) -> int | None:
        """Pixels, None for the base model's own."""
        chosen = self.run.image_size
        return (_SIDES[self.task] if chosen is None else chosen) or None

    def spec(self, snapshot: str, parent: str) -> training_run_pb2.TrainingSpec:
        """A short run on a snapshot."""
        shipped = get_facts(self.encoder or self.facts.name).works_offline
        return training_run_pb2.TrainingSpec(
            snapshot=snapshot,
            base_model=resource_name(self.facts.name),
            encoder=resource_name(self.encoder) if self.encoder else "",
            weights=training_run_pb2.WEIGHTS_PRETRAINED if shipped else training_run_pb2.WEIGHTS_NONE,
            model=f"{parent}/models/{self.resource_id}",
            epochs=self.run.epochs if self.makes_version else None,
            batch_size=4,
            image_size=self.image_size,
            seed=1,
            **self.run.options,
        )


def resource_name(base_model: str) -> str:
    """`baseModels/...` of a name in the catalogue."""
    return f"baseModels/{base_model.replace('_', '-')}"


def rows() -> list[Family]:
    """Every base model of the catalogue, one of timm's, and the other encoders."""
    known = [*list_facts(), get_facts(TIMM)]
    own = [
        Family(facts, LITE0 if facts.takes_encoder else "", OVERRIDES.get(facts.name, Run()))
        for facts in sorted(known, key=lambda facts: (list(Task).index(facts.task), facts.name))
    ]
    return own + [Family(get_facts(name), encoder, Run()) for name, encoder in OTHER_ENCODERS]
