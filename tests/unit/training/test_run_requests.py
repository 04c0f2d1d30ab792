"""What CreateTrainingRun accepts, and how it refuses."""

import math

import pytest

from enxerto.kernel.errors import InvalidArgumentError
from enxerto.training import converters
from enxerto.training.v1 import training_run_pb2, training_service_pb2
from enxerto.vision.finetuning import AugmentPolicy, Optimizer, Strategy, Weights
from family_rows import rows


def a_request(**changed):
    given = {
        "snapshot": "projects/default/datasets/digits/snapshots/1",
        "base_model": "baseModels/efficientnet-lite0",
        "model": "projects/default/models/digits",
    }
    return training_service_pb2.CreateTrainingRunRequest(
        parent="projects/default",
        training_run=training_run_pb2.TrainingRun(spec=training_run_pb2.TrainingSpec(**{**given, **changed})),
    )


def refused(request):
    with pytest.raises(InvalidArgumentError) as caught:
        converters.new_run(request)
    return {one.field: one.description for one in caught.value.violations}


def test_left_out_fields_take_the_defaults_of_the_strategy():
    new = converters.new_run(a_request())
    tune = new.spec.finetune
    assert (tune.strategy, tune.weights, tune.optimizer) == (
        Strategy.FEATURE_EXTRACTION,
        Weights.PRETRAINED,
        Optimizer.ADAMW,
    )
    assert (tune.epochs, tune.augmentation.policy, new.spec.num_workers) == (30, AugmentPolicy.NONE, 1)
    tuned = converters.new_run(a_request(strategy=training_run_pb2.STRATEGY_FINE_TUNE)).spec.finetune
    assert (tuned.epochs, tuned.batch_size) == (10, 32)


def test_given_zeros_are_not_left_out():
    stop = training_run_pb2.StopRule(early_stopping_patience=0)
    assert converters.new_run(a_request(stop=stop)).spec.finetune.stop.early_stopping_patience == 0
    assert "training_run.spec.epochs" in refused(a_request(epochs=0))


@pytest.mark.parametrize("rate", [0.0, -1.0, math.nan, math.inf])
def test_a_learning_rate_that_cannot_be_is_refused(rate):
    assert set(refused(a_request(learning_rate=rate))) == {"training_run.spec.learning_rate"}


def test_an_unknown_base_model_is_answered_with_those_that_there_are():
    text = refused(a_request(base_model="baseModels/alexnet"))["training_run.spec.base_model"]
    for known in ("efficientnet-lite0", "resnet18", "resnet50", "vgg16", "efficientnet-b0"):
        assert f"baseModels/{known}" in text
    text = refused(a_request(base_model="baseModels/timm-resnet-50"))["training_run.spec.base_model"]
    assert "did you mean baseModels/timm-resnet50" in text


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"snapshot": "projects/default/datasets/di/gits/snapshots/1"}, "snapshot"),
        ({"snapshot": ""}, "snapshot"),
        ({"model": "projects/default/models/a/b"}, "model"),
        ({"model": "projects/other/models/digits"}, "model"),
        ({"snapshot": "projects/other/datasets/digits/snapshots/1"}, "snapshot"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": 1, "num_workers": 2}, "batch_size"),
        ({"num_workers": 65}, "num_workers"),
        ({"num_workers": -1}, "num_workers"),
        ({"backbone_learning_rate_ratio": 1.5}, "backbone_learning_rate_ratio"),
        ({"weight_decay": -0.1}, "weight_decay"),
        ({"warmup_fraction": 1.0}, "warmup_fraction"),
        ({"unfreezing": {"stages": 10}}, "unfreezing.stages"),
        ({"base_model": "baseModels/timm-resnet18", "unfreezing": {"stages": 6}}, "unfreezing.stages"),
        ({"encoder": "baseModels/resnet18"}, "encoder"),
        ({"base_model": "baseModels/unet", "encoder": "baseModels/timm-vit-tiny-patch16-224"}, "encoder"),
        (
            {"strategy": training_run_pb2.STRATEGY_FINE_TUNE, "epochs": 5, "unfreezing": {"head_warmup_epochs": 5}},
            "unfreezing.head_warmup_epochs",
        ),
        ({"image_size": 16}, "image_size"),
        ({"precision": 99}, "precision"),
        ({"loss": {"class_weights": 99}}, "loss.class_weights"),
        ({"loss": {"focal_gamma": -1.0}}, "loss.focal_gamma"),
        ({"augmentation": {"mixup_alpha": 0.5}}, "augmentation.mixup_alpha"),
        ({"stop": {"max_duration": {"seconds": -1}}}, "stop.max_duration"),
        ({"checkpoints": {"every_duration": {"seconds": -1}}}, "checkpoints.every_duration"),
        ({"checkpoints": {"every_duration": {"seconds": 60}, "every_epochs": 3}}, "checkpoints.every_epochs"),
        ({"quantization": {"max_score_loss": 2.0}}, "quantization.max_score_loss"),
        ({"style": {"steps": 5}}, "style"),
        ({"seed": -1}, "seed"),
        ({"strategy": 99}, "strategy"),
        ({"weights": 99}, "weights"),
        ({"optimizer": 99}, "optimizer"),
    ],
)
def test_one_bad_field_is_named(changed, field):
    assert set(refused(a_request(**changed))) == {f"training_run.spec.{field}"}


GATYS = {"base_model": "baseModels/gatys"}
FAST = {"base_model": "baseModels/fast-style", "strategy": training_run_pb2.STRATEGY_FINE_TUNE}


@pytest.mark.parametrize(
    ("run", "changed", "field"),
    [
        (GATYS, {"epochs": 3}, "epochs"),
        (GATYS, {"batch_size": 8}, "batch_size"),
        (GATYS, {"learning_rate": 0.1}, "learning_rate"),
        (GATYS, {"optimizer": training_run_pb2.OPTIMIZER_SGD}, "optimizer"),
        (GATYS, {"schedule": training_run_pb2.SCHEDULE_LINEAR}, "schedule"),
        (GATYS, {"ema_decay": 0.9}, "ema_decay"),
        (GATYS, {"find_learning_rate": True}, "find_learning_rate"),
        (GATYS, {"unfreezing": {"stages": 1}}, "unfreezing.stages"),
        (GATYS, {"augmentation": {"policy": training_run_pb2.Augmentation.POLICY_NONE}}, "augmentation.policy"),
        (GATYS, {"stop": {"early_stopping_patience": 3}}, "stop.early_stopping_patience"),
        (GATYS, {"stop": {"target_score": 0.5}}, "stop.target_score"),
        (GATYS, {"quantization": {"mode": training_run_pb2.Quantization.MODE_FP16}}, "quantization.mode"),
        (FAST, {"style": {"steps": 5}}, "style.steps"),
        (FAST, {"stop": {"target_score": -0.5}}, "stop.target_score"),
        (FAST, {"unfreezing": {"epochs_per_stage": 1}}, "unfreezing.epochs_per_stage"),
        (FAST, {"batch_norm": training_run_pb2.BATCH_NORM_LEARNED}, "batch_norm"),
        (FAST, {"backbone_learning_rate_ratio": 0.5}, "backbone_learning_rate_ratio"),
        (FAST, {"augmentation": {"magnitude": 5}}, "augmentation.magnitude"),
        ({}, {"unfreezing": {"stages": 1}}, "unfreezing.stages"),
        ({}, {"augmentation": {"magnitude": 5}}, "augmentation.magnitude"),
        ({}, {"quantization": {"max_score_loss": 0.5}}, "quantization.max_score_loss"),
        ({}, {"unfreezing": {"head_warmup_epochs": 1}}, "unfreezing.head_warmup_epochs"),
        ({}, {"batch_norm": training_run_pb2.BATCH_NORM_FROZEN}, "batch_norm"),
        ({}, {"stage_learning_rate_decay": 0.5}, "stage_learning_rate_decay"),
    ],
)
def test_what_would_have_no_effect_is_refused(run, changed, field):
    converters.new_run(a_request(**run))
    assert set(refused(a_request(**run, **changed))) == {f"training_run.spec.{field}"}


def test_pictures_that_are_optimised_need_no_batch_for_each_worker():
    assert converters.new_run(a_request(**GATYS, num_workers=8)).spec.num_workers == 8


@pytest.mark.parametrize("family", rows(), ids=lambda family: family.id)
def test_what_a_run_shows_may_be_asked_for_again(family):
    request = a_request()
    request.training_run.spec.CopyFrom(family.spec("projects/default/datasets/digits/snapshots/1", "projects/default"))
    first = converters.new_run(request).spec
    request.training_run.spec.CopyFrom(converters.specs.spec_to_proto(first))
    assert converters.new_run(request).spec == first


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"base_model": "baseModels/timm-mixer-s16-224", "image_size": 128}, "image_size"),
        ({"base_model": "baseModels/timm-dla46-c", "image_size": 176}, "image_size"),
        ({"base_model": "baseModels/unet", "encoder": "baseModels/timm-hiera-tiny-224"}, "image_size"),
        (
            {"base_model": "baseModels/ssdlite", "encoder": "baseModels/timm-hiera-tiny-224", "image_size": 320},
            "image_size",
        ),
        ({"base_model": "baseModels/fast-style", "encoder": "baseModels/timm-hiera-tiny-224"}, "encoder"),
    ],
)
def test_a_side_that_the_backbone_cannot_take_is_refused(changed, field):
    assert set(refused(a_request(**changed))) == {f"training_run.spec.{field}"}


@pytest.mark.parametrize(
    "changed",
    [
        {"base_model": "baseModels/timm-mixer-s16-224"},
        {"base_model": "baseModels/timm-mixer-s16-224", "image_size": 224},
        {"base_model": "baseModels/timm-dla46-c", "image_size": 160},
        {"base_model": "baseModels/unet", "encoder": "baseModels/timm-hiera-tiny-224", "image_size": 224},
        {"base_model": "baseModels/fast-style", "encoder": "baseModels/resnet18"},
    ],
)
def test_a_side_that_the_backbone_takes_is_not_refused(changed):
    assert converters.new_run(a_request(**changed))


@pytest.mark.parametrize("encoder", ["yolov8n", "unet", "fasterrcnn-resnet50-fpn", "vit-b-16"])
def test_an_encoder_is_a_backbone_with_a_pyramid(encoder):
    # A run with another would wait in the queue only to be refused by its worker.
    for base_model in ("unet", "ssdlite", "fast-style"):
        request = a_request(base_model=f"baseModels/{base_model}", encoder=f"baseModels/{encoder}")
        assert set(refused(request)) == {"training_run.spec.encoder"}


@pytest.mark.parametrize(("base_model", "least"), [("ssdlite", 2), ("yolov8n", 2), ("unet", 2), ("fast-style", 1)])
def test_a_batch_holds_what_each_worker_needs_to_learn(base_model, least):
    for workers in (1, 3):
        given = {"base_model": f"baseModels/{base_model}", "num_workers": workers}
        assert converters.new_run(a_request(**given, batch_size=least * workers)).spec.num_workers == workers
        assert set(refused(a_request(**given, batch_size=least * workers - 1))) == {"training_run.spec.batch_size"}


def test_all_bad_fields_are_told_at_once():
    request = a_request(learning_rate=0.0, base_model="x", epochs=-1, model="m", num_workers=99)
    request.parent = "default"
    request.training_run_id = "Run/1"
    request.training_run.labels["Bad Key"] = "x"
    request.request_id = "x" * 129
    assert set(refused(request)) == {
        "parent",
        "training_run_id",
        "training_run.spec.base_model",
        "training_run.spec.epochs",
        "training_run.spec.learning_rate",
        "training_run.spec.model",
        "training_run.spec.num_workers",
        "training_run.labels['Bad Key']",
        "request_id",
    }


def test_every_base_model_of_the_catalogue_is_accepted():
    for known in ("efficientnet-lite0", "resnet18", "resnet50", "vgg16", "efficientnet-b0"):
        new = converters.new_run(a_request(base_model=f"baseModels/{known}", weights=training_run_pb2.WEIGHTS_NONE))
        assert new.spec.finetune.base_model == known.replace("-", "_")


def every_field():
    v1 = training_run_pb2
    return v1.TrainingSpec(
        snapshot="projects/default/datasets/digits/snapshots/1",
        base_model="baseModels/efficientnet-lite0",
        model="projects/default/models/digits",
        weights=v1.WEIGHTS_NONE,
        strategy=v1.STRATEGY_FINE_TUNE,
        epochs=3,
        batch_size=7,
        learning_rate=0.25,
        backbone_learning_rate_ratio=0.5,
        weight_decay=0.125,
        optimizer=v1.OPTIMIZER_SGD,
        warmup_fraction=0.25,
        seed=9,
        num_workers=2,
        image_size=96,
        head=v1.Head(hidden_units=16, dropout=0.5),
        unfreezing=v1.Unfreezing(stages=2, epochs_per_stage=1, head_warmup_epochs=1),
        stage_learning_rate_decay=0.75,
        batch_norm=v1.BATCH_NORM_LEARNED,
        schedule=v1.SCHEDULE_STEP,
        loss=v1.Loss(label_smoothing=0.125, class_weights=v1.Loss.CLASS_WEIGHTS_BALANCED, focal_gamma=2.0),
        augmentation=v1.Augmentation(
            policy=v1.Augmentation.POLICY_RANDAUGMENT, magnitude=5, mixup_alpha=0.25, cutmix_alpha=0.5
        ),
        sampling=v1.SAMPLING_BALANCED,
        ema_decay=0.5,
        precision=v1.PRECISION_FP32,
        gradient_clip_norm=1.0,
        accumulation_steps=2,
        stop=v1.StopRule(early_stopping_patience=0, max_duration={"seconds": 90}, target_score=0.75),
        find_learning_rate=True,
        quantization=v1.Quantization(mode=v1.Quantization.MODE_STATIC_INT8, max_score_loss=0.25),
        checkpoints=v1.CheckpointRule(every_epochs=1, every_duration={"seconds": 30}),
    )


def test_every_field_is_read_and_shown_again():
    spec = every_field()
    given = {field.name for field, _ in spec.ListFields()}
    assert given == {field.name for field in spec.DESCRIPTOR.fields} - {"encoder", "style"}
    request = a_request()
    request.training_run.spec.CopyFrom(spec)
    shown = converters.specs.spec_to_proto(converters.new_run(request).spec)
    shown.ClearField("style")
    assert shown == spec


def test_a_duration_that_is_not_given_is_not_shown():
    shown = converters.specs.spec_to_proto(converters.new_run(a_request()).spec)
    assert not shown.stop.HasField("max_duration")
    assert not shown.HasField("image_size")
    assert shown.precision == training_run_pb2.PRECISION_UNSPECIFIED
