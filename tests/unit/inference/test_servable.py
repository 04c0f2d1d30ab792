"""Which versions the front takes, by what the registry says of them."""

from collections.abc import Callable

import pytest

from enxerto.inference.adapters.registry_client import servable
from enxerto.inference.errors import VersionNotServableError
from enxerto.registry.v1 import model_version_pb2
from enxerto.type.v1 import task_pb2, tensor_pb2
from enxerto.vision.specs import Task
from fakes.tiny_onnx import TinyDetector, TinyModel, TinyNegative, TinySegmenter

Message = model_version_pb2.ModelVersion
TINY = {tiny.task: tiny for tiny in (TinyModel(), TinyDetector(), TinySegmenter(), TinyNegative())}


def version(task: Task) -> Message:
    message = TINY[task].version("0" * 64)
    message.name, message.state = "projects/default/models/m/versions/1", Message.STATE_READY
    message.task = task_pb2.Task.Value(f"TASK_{task.value}")
    return message


@pytest.mark.parametrize("task", Task)
def test_every_task_is_served_with_the_outputs_of_its_contract(task: Task) -> None:
    message = version(task)
    found = servable(message)
    assert (found.task, found.height, found.any_size) == (task, TINY[task].size, task is Task.STYLE)
    outputs = list(message.outputs)
    del message.outputs[:]
    message.outputs.extend(reversed(outputs))
    assert servable(message).outputs == found.outputs, "the order is the contract's, whatever the registry's is"


def test_a_painter_needs_no_classes() -> None:
    message = version(Task.STYLE)
    message.ClearField("label_map")
    assert servable(message).labels == ()


def _another_state(message: Message) -> None:
    message.state = Message.STATE_QUARANTINED


def _no_task(message: Message) -> None:
    message.task = task_pb2.TASK_UNSPECIFIED


def _another_task(message: Message) -> None:
    message.task = task_pb2.TASK_SEGMENTATION


def _two_inputs(message: Message) -> None:
    message.inputs.add(name="more")


def _another_size(message: Message) -> None:
    message.inputs[0].shape[2] += 1


def _bytes_in(message: Message) -> None:
    message.inputs[0].datatype = "UINT8"


def _any_size(message: Message) -> None:
    message.preprocess.resize = tensor_pb2.PreprocessSpec.RESIZE_FIT


def _no_classes(message: Message) -> None:
    message.ClearField("label_map")


def _an_output_less(message: Message) -> None:
    del message.outputs[-1]


def _another_datatype(message: Message) -> None:
    message.outputs[0].datatype = "FP16"


def _another_rank(message: Message) -> None:
    message.outputs[0].shape.append(1)


@pytest.mark.parametrize(
    "change",
    [
        _another_state,
        _no_task,
        _another_task,
        _two_inputs,
        _another_size,
        _bytes_in,
        _any_size,
        _no_classes,
        _an_output_less,
        _another_datatype,
        _another_rank,
    ],
)
def test_what_does_not_fit_its_task_is_refused(change: Callable[[Message], None]) -> None:
    message = version(Task.DETECTION)
    change(message)
    with pytest.raises(VersionNotServableError):
        servable(message)
