"""The values that a spec chooses from, as the contract names them."""

import enum


class Strategy(enum.StrEnum):
    """How much of the pretrained network is trained."""

    FEATURE_EXTRACTION = "FEATURE_EXTRACTION"
    FINE_TUNE = "FINE_TUNE"


class Weights(enum.StrEnum):
    """Where the backbone starts from."""

    PRETRAINED = "PRETRAINED"
    NONE = "NONE"


class Optimizer(enum.StrEnum):
    """Update rule of everything that learns."""

    ADAMW = "ADAMW"
    SGD = "SGD"


class Schedule(enum.StrEnum):
    """The learning rate after its warm-up."""

    COSINE = "COSINE"
    LINEAR = "LINEAR"
    STEP = "STEP"
    CONSTANT = "CONSTANT"
    ONE_CYCLE = "ONE_CYCLE"


class BatchNorm(enum.StrEnum):
    """Batch-norm statistics in stages that learn. AUTO: FROZEN with pretrained weights, LEARNED without."""

    AUTO = "AUTO"
    FROZEN = "FROZEN"
    LEARNED = "LEARNED"


class Sampling(enum.StrEnum):
    """How the images of an epoch are drawn."""

    SHUFFLED = "SHUFFLED"
    BALANCED = "BALANCED"


class Precision(enum.StrEnum):
    """Numbers to compute with. AUTO: mixed where the GPU has it."""

    AUTO = "AUTO"
    FP32 = "FP32"
    BF16 = "BF16"
    FP16 = "FP16"


class ClassWeights(enum.StrEnum):
    """How much a class counts in the loss."""

    NONE = "NONE"
    BALANCED = "BALANCED"


class AugmentPolicy(enum.StrEnum):
    """How training images are varied."""

    NONE = "NONE"
    LIGHT = "LIGHT"
    RANDAUGMENT = "RANDAUGMENT"


class QuantizationMode(enum.StrEnum):
    """Numbers of the exported graph."""

    NONE = "NONE"
    DYNAMIC_INT8 = "DYNAMIC_INT8"
    STATIC_INT8 = "STATIC_INT8"
    FP16 = "FP16"
