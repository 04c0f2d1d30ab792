"""What the catalogue says of the torchvision models is what torchvision itself says."""

import pytest
import torchvision
from torchvision.models import get_model_weights

from enxerto.kernel.names import BaseModelName
from enxerto.vision.catalogue import BaseModelFacts, DownloadableWeights, PackagedWeights, get_facts, list_facts
from enxerto.vision.finetuning import FinetuneSpec, Weights
from enxerto.vision.specs import Resize, Task
from enxerto.vision.torch.detection.families import build_detector
from enxerto.vision.torch.segmentation.construction import build_segmenter
from enxerto.vision.torch.weights import WeightsSources

_CLASSIFIERS = [
    facts for facts in list_facts() if facts.library.startswith("torchvision/") and facts.task is Task.CLASSIFICATION
]
_WHOLE = [facts for facts in list_facts() if facts.library.startswith("torchvision/") and facts.whole]


@pytest.mark.parametrize("facts", _CLASSIFIERS, ids=lambda facts: facts.name)
def test_download_and_preprocessing_are_the_librarys(facts: BaseModelFacts) -> None:
    published = get_model_weights(facts.library.partition("/")[2]).IMAGENET1K_V1
    theirs, ours = published.transforms(), facts.preprocess
    assert facts.download == DownloadableWeights(published.url)
    assert (ours.height, ours.width) == (theirs.crop_size[0], theirs.crop_size[0])
    assert round(ours.height / ours.crop_fraction) == theirs.resize_size[0]
    assert (list(ours.mean), list(ours.std)) == (theirs.mean, theirs.std)
    assert ours.interpolation == theirs.interpolation.value


@pytest.mark.parametrize("facts", _WHOLE, ids=lambda facts: facts.name)
def test_whole_networks_are_the_librarys(facts: BaseModelFacts) -> None:
    name = facts.library.partition("/")[2]
    (published,) = get_model_weights(name)
    assert facts.download == DownloadableWeights(published.url)
    assert facts.parameters == published.meta["num_params"]
    assert torchvision.models.get_model(name, weights=None, weights_backbone=None) is not None


def test_names_are_ids_with_underscores() -> None:
    for facts in list_facts():
        assert BaseModelName.parse(f"baseModels/{facts.name.replace('_', '-')}")
        assert get_facts(facts.name) is facts


def shipped() -> list[BaseModelFacts]:
    """Without what other tests of this process have registered."""
    return [facts for facts in list_facts() if facts.library != "tests/tiny"]


def test_each_task_has_its_families() -> None:
    by_task = {task: {facts.name for facts in shipped() if facts.task is task} for task in Task}
    assert len(by_task[Task.CLASSIFICATION]) == 31
    assert by_task[Task.DETECTION] >= {"fasterrcnn", "ssd", "ssdlite", "retinanet", "yolov8n", "yolox_nano", "yolov9_t"}
    assert by_task[Task.SEGMENTATION] >= {"unet", "deeplabv3", "deeplabv3plus", "fcn", "lraspp"}
    assert by_task[Task.STYLE] == {"gatys", "gatys_vgg16", "gatys_vgg19", "fast_style", "fast_style_vgg16"}
    way = {Task.DETECTION: Resize.LETTERBOX, Task.SEGMENTATION: Resize.STRETCH, Task.STYLE: Resize.FIT}
    for task, resize in way.items():
        assert {get_facts(name).preprocess.resize for name in by_task[task]} == {resize}


def test_licences_are_named() -> None:
    for facts in shipped():
        assert facts.licence
        assert facts.licence_note
        assert (facts.licence == "AGPL-3.0-only") == (facts.required_extra == "ultralytics")
        assert isinstance(facts.packaged, PackagedWeights | None)
        if facts.takes_encoder:
            assert (facts.parameters, facts.stages, facts.download, facts.packaged) == (0, (), None, None)


_BUILT_BY_TASKS = [
    facts for facts in list_facts() if facts.task in {Task.DETECTION, Task.SEGMENTATION} and not facts.takes_encoder
]


@pytest.mark.parametrize("facts", _BUILT_BY_TASKS, ids=lambda facts: facts.name)
def test_stages_are_those_of_the_network_that_is_built(facts: BaseModelFacts) -> None:
    if facts.required_extra:
        pytest.importorskip(facts.required_extra)
    spec = FinetuneSpec.with_defaults(facts.name, task=facts.task, weights=Weights.NONE)
    none = WeightsSources(download=False)
    if facts.task is Task.DETECTION:
        network = build_detector(spec, facts, 80, none).detector
        stages = network.stages
        if facts.required_extra:
            assert facts.parameters == sum(parameter.numel() for parameter in network.parameters())
    else:
        stages = build_segmenter(spec, facts, 3, none).network.stages
    assert tuple(name for name, _ in stages) == facts.stages
