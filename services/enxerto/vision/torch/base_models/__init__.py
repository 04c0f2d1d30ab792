"""Base models as networks: constructors, stages and pretrained weights. Their facts are in `vision.catalogue`."""

from enxerto.vision.torch.base_models.backbone import ChainBackbone, PyramidLevel, StagedBackbone
from enxerto.vision.torch.base_models.building import (
    BaseModel,
    build_backbone,
    get_base_model,
    list_base_models,
    register_base_model,
)
from enxerto.vision.torch.base_models.checking import check_weights
from enxerto.vision.torch.base_models.preprocessing import DEFAULT_ENCODER, preprocess_of

__all__ = [
    "DEFAULT_ENCODER",
    "BaseModel",
    "ChainBackbone",
    "PyramidLevel",
    "StagedBackbone",
    "build_backbone",
    "check_weights",
    "get_base_model",
    "list_base_models",
    "preprocess_of",
    "register_base_model",
]
