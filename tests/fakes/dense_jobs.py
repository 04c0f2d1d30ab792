"""Jobs and base models for recipes whose networks take an encoder, with tiny backbones and no download."""

from pathlib import Path

from torch import nn

from enxerto.vision.catalogue import BaseModelFacts, list_facts
from enxerto.vision.finetuning import FinetuneSpec
from enxerto.vision.snapshots import FolderBlobs, Manifest
from enxerto.vision.specs import PreprocessSpec, Resize, Task
from enxerto.vision.torch.base_models import BaseModel, register_base_model
from enxerto.vision.torch.collectives import Distribution
from enxerto.vision.torch.devices import Compute
from enxerto.vision.torch.recipe import Job
from enxerto.vision.torch.weights import WeightsSources

TINY = "tiny_vgg"
_CHANNELS = (8, 12, 16, 16, 16)


def tiny_encoder() -> str:
    """Name of a small backbone like VGG, with a pyramid of strides 2 to 32; it has random weights only."""
    if TINY not in {facts.name for facts in list_facts()}:
        register_base_model(BaseModel(_facts(TINY, Task.CLASSIFICATION, Resize.CENTER_CROP), _network, _split))
    return TINY


def family(name: str, task: Task, *, library: str = "", takes_encoder: bool = True, side: int = 64) -> BaseModelFacts:
    """Facts of a base model as the catalogue would have them."""
    resize = Resize.FIT if task is Task.STYLE else Resize.STRETCH
    return _facts(name, task, resize, library=library, takes_encoder=takes_encoder, side=side)


def job(spec: FinetuneSpec, facts: BaseModelFacts, data: tuple[Manifest, FolderBlobs], cache: Path) -> Job:
    """One worker, one thread, nothing downloaded."""
    sources = WeightsSources(download=False, cache=cache)
    return Job(
        spec=spec,
        facts=facts,
        manifest=data[0],
        blobs=data[1],
        sources=sources,
        where=Distribution(),
        compute=Compute("cpu", None, 1),
    )


def _facts(
    name: str, task: Task, resize: Resize, *, library: str = "tests/tiny", takes_encoder: bool = False, side: int = 64
) -> BaseModelFacts:
    half = (0.5, 0.5, 0.5)
    return BaseModelFacts(
        name=name,
        title=name,
        task=task,
        library=library,
        licence="Apache-2.0",
        licence_note="",
        parameters=0,
        feature_dim=0 if takes_encoder else _CHANNELS[-1],
        stages=() if takes_encoder else tuple(f"conv{index}" for index in range(1, 6)),
        preprocess=PreprocessSpec(side, side, 1.0, "bilinear", half, half, resize),
        packaged=None,
        download=None,
        takes_encoder=takes_encoder,
    )


def _network() -> nn.Module:
    blocks: list[nn.Module] = []
    before = 3
    for channels in _CHANNELS:
        conv = nn.Conv2d(before, channels, 3, padding=1)
        nn.init.kaiming_normal_(conv.weight)
        blocks.append(nn.Sequential(conv, nn.ReLU(), nn.MaxPool2d(2)))
        before = channels
    return nn.Sequential(*blocks)


def _split(network: nn.Module) -> tuple[list[tuple[str, nn.Module]], nn.Module]:
    assert isinstance(network, nn.Sequential)
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return [(f"conv{index}", block) for index, block in enumerate(network, start=1)], pool
