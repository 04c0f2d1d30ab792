"""What the catalogue says of the torchvision models is what torchvision itself says."""

import pytest
from torchvision.models import get_model_weights

from enxerto.vision.catalogue import BaseModelFacts, list_facts

_FROM_TORCHVISION = [facts for facts in list_facts() if facts.library.startswith("torchvision/")]


@pytest.mark.parametrize("facts", _FROM_TORCHVISION, ids=lambda facts: facts.name)
def test_download_and_preprocessing_are_the_librarys(facts: BaseModelFacts) -> None:
    published = get_model_weights(facts.library.partition("/")[2]).IMAGENET1K_V1
    theirs, ours = published.transforms(), facts.preprocess
    assert facts.download.url == published.url
    assert (ours.height, ours.width) == (theirs.crop_size[0], theirs.crop_size[0])
    assert round(ours.height / ours.crop_fraction) == theirs.resize_size[0]
    assert (list(ours.mean), list(ours.std)) == (theirs.mean, theirs.std)
    assert ours.interpolation == theirs.interpolation.value
