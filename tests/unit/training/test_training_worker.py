"""The train function without Ray: what a job leaves, how it goes on, and how it fails."""

import contextlib
import errno
import hashlib
import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import obstore
import onnx
import pytest
import torch
from google.rpc import code_pb2, error_details_pb2
from google.rpc.status_pb2 import Status
from safetensors.torch import load_file, save_file

from enxerto.kernel.errors import InvalidArgumentError, UnavailableError, Violation
from enxerto.training.adapters.event_log import EventLogWriter
from enxerto.training.adapters.object_store import blob_key, open_store, spec_key
from enxerto.training.domain import (
    CheckpointSaved,
    EpochCompleted,
    JobStarted,
    JobTrained,
    LogLine,
    Progress,
    TrainingResult,
)
from enxerto.training.errors import WorkersLostError
from enxerto.training.ports import ImportedWeights
from enxerto.training.service import WeightsSupply
from enxerto.training.worker.checkpoints import StoredCheckpoints
from enxerto.training.worker.explanations import explain
from enxerto.training.worker.failures import failed_for_good, last_word, may_pass, write_failure
from enxerto.training.worker.order import JobOrder, read_document, read_spec, with_device
from enxerto.training.worker.reporter import Reporter
from enxerto.training.worker.training import train
from enxerto.vision.contracts import MIN_AGREEMENT
from enxerto.vision.embeddings import EmbeddingReference
from enxerto.vision.finetuning import Precision, QuantizationMode, QuantizationSpec, StopSpec, Strategy, StyleSpec
from enxerto.vision.images import load, to_batch
from enxerto.vision.onnx.golden import GOLDEN_FILE, read_golden
from enxerto.vision.onnx.session import OnnxModel
from enxerto.vision.snapshots import read_manifest
from enxerto.vision.specs import Split, Task
from enxerto.vision.torch.collectives import Distribution
from enxerto.vision.torch.devices import DeviceFacts
from enxerto.vision.torch.recipe import Checkpoint, Job, Trained
from fakes.dataset_folders import write_folder
from fakes.training_stores import START, InMemoryWeights
from flushes import Flush
from training_stack import eventually
from worker_orders import CLASSES, draw_classes, read_log, read_result, small_spec, write_order

pytestmark = pytest.mark.timeout(300)


def content(order: JobOrder, result: TrainingResult, filename: str) -> bytes:
    """One stored file."""
    (artifact,) = [one for one in (*result.artifacts, *result.files) if one.filename == filename]
    data = bytes(obstore.get(order.store(), blob_key(artifact.sha256)).bytes())
    assert (len(data), hashlib.sha256(data).hexdigest()) == (artifact.size_bytes, artifact.sha256)
    return data


async def test_a_run_leaves_all_that_a_version_needs(tmp_path: Path) -> None:
    order = write_order(tmp_path, draw_classes(tmp_path / "data"), small_spec(strategy=Strategy.FINE_TUNE))
    train(order, Distribution())
    result = await read_result(order)
    assert {one.filename for one in result.artifacts} >= {
        "model.onnx", "weights.safetensors", "metrics.json", "report.html", "curves.png", "confusion.png",
        "classes.png", "embedding_reference.json",
    }  # fmt: skip
    assert result.label_map.names == CLASSES
    assert result.parity is not None
    assert result.parity.agreement == 1.0
    model = OnnxModel(content(order, result, "model.onnx"))
    card = model.card
    golden = read_golden(content(order, result, GOLDEN_FILE), card.task)
    assert golden.agreement(model.run(golden.images)) == 1.0
    assert (card.inputs, card.outputs) == (result.inputs, result.outputs)
    assert model.output_names == ("probabilities", "embedding")
    reference = EmbeddingReference.from_json(content(order, result, "embedding_reference.json"))
    pictures = [path.read_bytes() for path in sorted((tmp_path / "data").rglob("*.png"))]
    images = to_batch([load(picture, card.preprocess) for picture in pictures])
    distances = reference.distances(model.run(images, ["embedding"])["embedding"])
    # The snapshot holds some of the pictures back, which lie a little farther than the others.
    assert 0 < reference.count < len(pictures)
    assert 0.5 < np.median(distances) < 2
    assert reference.held_out_drift > 0
    assert card.provenance["training_run"] == "projects/default/trainingRuns/run1"
    names = {one.name for one in result.metrics}
    assert names >= {"accuracy", "f1_macro", "best_epoch_loss", "best_epoch_accuracy"}
    assert {one.class_name for one in result.metrics} >= set(CLASSES)
    numbers = json.loads(content(order, result, "metrics.json"))
    assert numbers["score_name"] == "accuracy"
    assert len(numbers["history"]) >= 3
    (tmp_path / "w.safetensors").write_bytes(content(order, result, "weights.safetensors"))
    assert len(load_file(tmp_path / "w.safetensors")) > 100
    report = content(order, result, "report.html").decode()
    assert "2 pictures are alike" in report
    assert torch.__version__.split("+")[0] in report
    assert result.lineage.weights_digest in report

    bodies = [entry.body for entry in await read_log(order)]
    assert isinstance(bodies[0], JobStarted)
    assert isinstance(bodies[-1], JobTrained)
    epochs = [one for one in bodies if isinstance(one, EpochCompleted)]
    assert {"loss", "accuracy"} <= {metric.name for metric in epochs[-1].metrics}
    assert any(isinstance(one, CheckpointSaved) and one.size_bytes > 1000 for one in bodies)
    phases = [getattr(one, "phase", "") for one in bodies]
    assert {"preparing", "exporting", "evaluating"} <= set(phases)
    assert not list(obstore.list(order.store(), "runs/run1/checkpoints/").collect())


@pytest.mark.parametrize(("said", "cluster_gpus", "use_gpu"), [(True, 0, True), (False, 8, False)])
def test_a_job_computes_on_what_the_service_has_decided(
    tmp_path: Path, said: bool, cluster_gpus: float, use_gpu: bool
) -> None:
    order = write_order(tmp_path, draw_classes(tmp_path / "data", each=4), small_spec())
    document = {**read_document(order), "use_gpu": said}
    obstore.put(order.store(), spec_key(order.uid), json.dumps(document).encode())
    assert with_device(order, cluster_gpus).use_gpu is use_gpu


def test_a_job_of_an_earlier_service_takes_gpus_where_there_are_enough(tmp_path: Path) -> None:
    order = write_order(tmp_path, draw_classes(tmp_path / "data", each=4), small_spec(), num_workers=2)
    assert [with_device(order, gpus).use_gpu for gpus in (0, 1, 2)] == [False, False, True]
    # One process answers a question, whatever the run would have.
    assert with_device(replace(order, mode="estimate"), 1).use_gpu is True


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch can use this machine's GPU")
async def test_a_worker_whose_gpu_torch_cannot_use_says_so(tmp_path: Path) -> None:
    spec = small_spec(precision=Precision.FP16)
    order = replace(write_order(tmp_path, draw_classes(tmp_path / "data", each=4), spec), use_gpu=True)
    train(order, Distribution())
    lines = [entry.body for entry in await read_log(order) if isinstance(entry.body, LogLine)]
    assert [line.severity for line in lines if "torch cannot use" in line.message] == ["WARNING"]


class Counting:
    """A recipe of any task that only looks at how many threads torch computes with."""

    def __init__(self) -> None:
        self.threads = 0

    def train(self, job: Job) -> Trained:
        self.threads = torch.get_num_threads()
        raise InvalidArgumentError([Violation("spec", "only looked")])


def test_torch_has_a_workers_threads_whatever_the_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, before = Counting(), torch.get_num_threads()
    monkeypatch.setattr("enxerto.training.worker.training.get_recipe", lambda task: recipe)
    monkeypatch.setattr("enxerto.training.worker.training.detect", lambda gpus: DeviceFacts(0, False, 7))
    order = write_order(tmp_path, draw_classes(tmp_path / "data", each=4), small_spec())
    try:
        train(order, Distribution())
        assert recipe.threads == 7
    finally:
        torch.set_num_threads(before)


async def test_a_smaller_graph_is_measured_before_it_is_served(tmp_path: Path) -> None:
    wanted = QuantizationSpec(mode=QuantizationMode.STATIC_INT8, max_score_loss=1.0)
    order = write_order(tmp_path, draw_classes(tmp_path / "data"), small_spec(quantization=wanted))
    train(order, Distribution())
    result = await read_result(order)
    metrics = {one.name: one.value for one in result.metrics}
    assert {"score_before_quantization", "score_after_quantization"} <= set(metrics)
    graph = onnx.load_from_string(content(order, result, "model.onnx"))
    assert any(node.op_type == "DequantizeLinear" for node in graph.graph.node)
    assert OnnxModel(graph.SerializeToString()).card.provenance["quantization"] == "STATIC_INT8"
    lines = [entry.body.message for entry in await read_log(order) if isinstance(entry.body, LogLine)]
    assert any(line.startswith("STATIC_INT8: ") for line in lines)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("base_model", "task", "mode", "figures"),
    [
        ("ssdlite", Task.DETECTION, QuantizationMode.FP16, {"detections.png", "classes.png"}),
        ("unet", Task.SEGMENTATION, QuantizationMode.DYNAMIC_INT8, {"masks.png", "classes.png"}),
        ("fast_style", Task.STYLE, QuantizationMode.NONE, {"styles.png"}),
    ],
)
async def test_every_task_leaves_a_version(
    tmp_path: Path, base_model: str, task: Task, mode: QuantizationMode, figures: set[str]
) -> None:
    write_folder(task, tmp_path / "data")
    wanted = QuantizationSpec(mode=mode, max_score_loss=1.0)
    spec = small_spec(task, base_model=base_model, image_size=64, epochs=1, batch_size=4, quantization=wanted)
    order = write_order(tmp_path, tmp_path / "data", spec)
    train(order, Distribution())
    result = await read_result(order)
    assert result.parity is not None
    assert result.parity.agreement >= MIN_AGREEMENT[task]
    assert {one.filename for one in result.artifacts} >= {"model.onnx", "report.html", "curves.png", *figures}
    assert OnnxModel(content(order, result, "model.onnx")).card.task is task


async def test_pictures_are_left_without_a_version(tmp_path: Path) -> None:
    write_folder(Task.STYLE, tmp_path / "data")
    spec = small_spec(Task.STYLE, base_model="gatys", image_size=32, style=StyleSpec(steps=3))
    order = write_order(tmp_path, tmp_path / "data", spec)
    train(order, Distribution())
    result = await read_result(order)
    assert (result.artifacts, result.parity, result.outputs) == ((), None, ())
    names = {one.filename for one in result.files}
    assert {"report.html", "metrics.json"} < names
    assert len([name for name in names if name.endswith(".png")]) > 1
    assert isinstance((await read_log(order))[-1].body, JobTrained)


async def test_pictures_that_were_made_are_left_when_the_time_is_over(tmp_path: Path) -> None:
    write_folder(Task.STYLE, tmp_path / "data")
    # Over before the first step.
    spec = small_spec(
        Task.STYLE, base_model="gatys", image_size=32, style=StyleSpec(steps=3), stop=StopSpec(max_duration_s=1e-9)
    )
    order = write_order(tmp_path, tmp_path / "data", spec)
    counts = read_manifest(order.blobs(), read_spec(order).manifest_sha256).count
    assert counts(Split.TEST) > 0
    train(order, Distribution())
    result = await read_result(order)
    assert result.stop_reason == "MAX_DURATION"
    (picture,) = json.loads(content(order, result, "pictures.json"))
    assert picture["split"] == "TEST"
    assert content(order, result, picture["file"]).startswith(b"\x89PNG")
    measured = {(one.name, one.split): one.value for one in result.metrics}
    assert measured["loss", "test"] == pytest.approx(picture["metrics"]["loss"])


async def test_imported_weights_reach_the_network_that_measures_style(tmp_path: Path) -> None:
    write_folder(Task.STYLE, tmp_path / "data", count=1)
    spec = small_spec(Task.STYLE, base_model="gatys_vgg16", image_size=32, style=StyleSpec(steps=1))
    # Real ones are half a gigabyte: that these are refused says that they were found.
    save_file({"features.0.weight": torch.zeros(2, 2)}, tmp_path / "vgg.safetensors")
    order = write_order(tmp_path, tmp_path / "data", spec)
    sha256 = order.blobs().put(tmp_path / "vgg.safetensors")
    catalogue = InMemoryWeights()
    await catalogue.put(ImportedWeights("vgg16", sha256, 1, START))
    await catalogue.publish(sha256, 1)
    document = {**read_document(order), "weights": await WeightsSupply(catalogue, catalogue).supply(spec)}
    obstore.put(order.store(), spec_key(order.uid), json.dumps(document).encode())
    train(order, Distribution())
    assert f"blob:{sha256}: does not fit torchvision/vgg16" in Status.FromString(last_word(order)).message


async def test_a_failure_says_why_and_is_not_tried_again(tmp_path: Path) -> None:
    spec = small_spec(base_model="resnet18")
    order = write_order(tmp_path, draw_classes(tmp_path / "data", each=4), spec)
    train(order, Distribution())
    status = Status.FromString(last_word(order))
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in status.details)
    assert (status.code, info.reason) == (code_pb2.FAILED_PRECONDITION, "WEIGHTS_UNAVAILABLE")
    assert "efficientnet_lite0" in status.message
    assert "Traceback" not in str(status)
    assert failed_for_good(order)
    before = len(await read_log(order))
    train(order, Distribution())
    assert len(await read_log(order)) == before


class Failing:
    """A recipe whose training ends with an error."""

    task = Task.CLASSIFICATION

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def train(self, job: Job) -> Trained:
        raise self.error


def failing_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> JobOrder:
    monkeypatch.setattr("enxerto.training.worker.training.get_recipe", lambda _task: Failing(error))
    return write_order(tmp_path, draw_classes(tmp_path / "data", each=4), small_spec())


def reason_of(status: Status) -> str:
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in status.details)
    return str(info.reason)


def caused_by(cause: Exception) -> Exception:
    error = UnavailableError("the blob store cannot be reached")
    error.__cause__ = cause
    return error


GPU_TEXT = "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79.11 GiB of which 1 MiB is"
TORCH_TEXT = (
    "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate"
)


@pytest.mark.parametrize(
    ("error", "reason", "words"),
    [
        (torch.OutOfMemoryError(GPU_TEXT), "OUT_OF_GPU_MEMORY", ["20.00 GiB", "batch_size", "accumulation_steps"]),
        (RuntimeError("CUDA error: out of memory"), "OUT_OF_GPU_MEMORY", ["image_size"]),
        (MemoryError("Unable to allocate 3.00 TiB for an array"), "OUT_OF_MEMORY", ["batch_size"]),
        (RuntimeError(f"{TORCH_TEXT} 4096 bytes"), "OUT_OF_MEMORY", ["machine"]),
        (OSError(errno.ENOSPC, "No space left on device", "/data/cache/x"), "DISK_FULL", ["/data/cache", "room"]),
        (caused_by(OSError(errno.ENOSPC, "No space left on device")), "DISK_FULL", ["the folder /"]),
        (ValueError("IoError(Os { code: 28, message: No space left on device })"), "DISK_FULL", ["the folder /"]),
    ],
)
def test_a_machine_that_is_too_small_is_said_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str, words: list[str]
) -> None:
    order = failing_order(tmp_path, monkeypatch, error)
    train(order, Distribution())
    status = Status.FromString(last_word(order))
    assert (status.code, reason_of(status)) == (code_pb2.RESOURCE_EXHAUSTED, reason)
    assert [word for word in words if word not in status.message] == []
    # The same would happen again.
    assert failed_for_good(order)


def test_the_other_workers_do_not_hide_the_one_that_has_failed(tmp_path: Path) -> None:
    order = write_order(tmp_path, draw_classes(tmp_path / "data", each=4), small_spec())
    assert write_failure(order, explain(torch.OutOfMemoryError(GPU_TEXT), order))
    assert not write_failure(replace(order, attempt=2), RuntimeError("Connection closed by peer"))
    assert write_failure(order, RuntimeError("Connection closed by peer"))
    assert reason_of(Status.FromString(last_word(order))) == "OUT_OF_GPU_MEMORY"
    # A death that Ray has seen explains a silent neighbour, and not the other way round.
    lost = WorkersLostError("run1", 3, "its node has died")
    assert reason_of(Status.FromString(last_word(replace(order, attempt=2), lost))) == "WORKERS_LOST"


async def test_what_nobody_foresaw_is_told_by_its_first_line_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "GET https://me:hunter2@host/a?X-Amz-Signature=hunter2 password='hunter2' Bearer hunter2\nstack hunter2"
    order = failing_order(tmp_path, monkeypatch, ZeroDivisionError(text))
    with pytest.raises(ZeroDivisionError):
        train(order, Distribution())
    status = Status.FromString(last_word(order))
    assert status.code == code_pb2.INTERNAL
    assert "ZeroDivisionError: GET https://…@host/a?…" in status.message
    assert "run1-1" in status.message
    assert not any(word in str(status) for word in ("hunter2", "stack", "Traceback"))
    assert not failed_for_good(order)


@pytest.mark.parametrize(
    ("error", "passes"), [(UnavailableError("the blob store is away"), True), (MemoryError(), False)]
)
def test_what_was_away_for_a_while_is_worth_another_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, passes: bool
) -> None:
    order = failing_order(tmp_path, monkeypatch, error)
    with pytest.raises(UnavailableError) if passes else contextlib.nullcontext():
        train(order, Distribution())
    assert may_pass(order) == passes


def test_a_run_goes_on_where_only_its_progress_cannot_be_told() -> None:
    class Away(EventLogWriter):
        def __init__(self) -> None:
            self.told: list[object] = []

        def append(self, body: object) -> int:
            if isinstance(body, Progress | LogLine):
                raise UnavailableError("the blob store is away")
            self.told.append(body)
            return len(self.told)

    log = Away()
    with Reporter(log, 1) as reporter:
        reporter.phase("preparing")
        reporter.flush()
        reporter.send(JobTrained())
        reporter.flush()
        assert log.told == [JobTrained()]
        reporter.log("a line that has to be told")
        with pytest.raises(UnavailableError):
            reporter.flush()


def test_an_unforeseen_failure_has_a_last_word(tmp_path: Path) -> None:
    order = write_order(tmp_path, draw_classes(tmp_path / "data", each=4), small_spec())
    status = Status.FromString(last_word(order))
    assert status.code == code_pb2.INTERNAL
    assert "run1-1" in status.message
    assert not failed_for_good(order)


def test_the_last_checkpoint_counts_and_the_one_before_goes(tmp_path: Path) -> None:
    store = write_order(tmp_path, draw_classes(tmp_path / "data", each=4), small_spec()).store()
    told: list[tuple[int, int]] = []
    checkpoints = StoredCheckpoints(store, "u", lambda one, size: told.append((one.epoch, size)))
    assert checkpoints.load() is None
    for epoch in (1, 2):
        tensors = {"weight": torch.full((2, 3), float(epoch)), "step": torch.tensor(epoch)}
        checkpoints.save(Checkpoint("TRAIN", epoch, {"history": [{"loss": 0.5}], "name": "ü"}, tensors))
    stored = [one["path"] for one in obstore.list(store, "runs/u/checkpoints/").collect()]
    assert stored == ["runs/u/checkpoints/00000002.safetensors"]
    # Another worker, another attempt.
    loaded = StoredCheckpoints(store, "u").load()
    assert loaded is not None
    assert (loaded.phase, loaded.epoch, loaded.meta) == ("TRAIN", 2, {"history": [{"loss": 0.5}], "name": "ü"})
    assert torch.equal(loaded.tensors["weight"], torch.full((2, 3), 2.0))
    assert loaded.tensors["step"].item() == 2
    assert [epoch for epoch, _ in told] == [1, 2]
    assert all(size > 24 for _, size in told)
    checkpoints.clear()
    assert checkpoints.load() is None


def test_a_checkpoint_is_on_the_disk_before_the_one_before_goes(tmp_path: Path, flushes: list[Flush]) -> None:
    store = open_store(f"file://{tmp_path}")
    checkpoints = StoredCheckpoints(store, "u", lambda _one, _size: flushes.append(Flush(Path("told"), set())))
    checkpoints.save(Checkpoint("TRAIN", 1, {}, {"weight": torch.zeros(3)}))
    flushes.clear()
    checkpoints.save(Checkpoint("TRAIN", 2, {}, {"weight": torch.ones(3)}))
    content, name, told = flushes
    folder, before, after = tmp_path / "runs/u/checkpoints", "00000001.safetensors", "00000002.safetensors"
    assert content == Flush(content.target, {before, content.target.name})
    assert content.target.name != after
    assert name == Flush(folder, {before, after})
    assert told.target == Path("told")
    assert [path.name for path in folder.iterdir()] == [after]


def test_what_a_dead_worker_has_half_written_is_no_checkpoint(tmp_path: Path) -> None:
    store = open_store(f"file://{tmp_path}")
    StoredCheckpoints(store, "u").save(Checkpoint("TRAIN", 1, {}, {"weight": torch.zeros(3)}))
    (tmp_path / "runs/u/checkpoints/00000002.safetensors#7").write_bytes(b"")
    loaded = StoredCheckpoints(store, "u").load()
    assert loaded is not None
    assert loaded.epoch == 1


RUN = """
import sys
from pathlib import Path
from enxerto.training.worker.order import JobOrder, read_document, read_spec
from enxerto.training.worker.training import train
from enxerto.vision.snapshots import read_manifest
from enxerto.vision.specs import Split, Task
from enxerto.vision.torch.collectives import Distribution
url, cache = sys.argv[1:]
train(JobOrder(url, "run1", 1, Path(cache), None, weights_download=False), Distribution())
"""


def die_after_a_checkpoint(order: JobOrder) -> Checkpoint:
    """Train in a process of its own, and kill it once a checkpoint is stored."""
    with subprocess.Popen([sys.executable, "-c", RUN, order.blob_url, str(order.cache_folder)]) as process:
        stored = eventually(lambda: StoredCheckpoints(order.store(), order.uid).load(), 200)
        process.send_signal(signal.SIGKILL)
    return stored


async def test_another_attempt_goes_on_from_the_last_checkpoint(tmp_path: Path) -> None:
    spec = small_spec(strategy=Strategy.FINE_TUNE, epochs=200, stop=StopSpec(early_stopping_patience=0))
    data = draw_classes(tmp_path / "data")
    first = write_order(tmp_path, data, spec)
    stored = die_after_a_checkpoint(first)
    # The rest of an hour's work in a moment: the time that the lost worker spent counts as well.
    brief = small_spec(strategy=Strategy.FINE_TUNE, epochs=200, stop=StopSpec(max_duration_s=0.001))
    second = write_order(tmp_path, data, brief, attempt=2)
    train(second, Distribution())
    epochs = [one.body.progress for one in await read_log(second) if isinstance(one.body, EpochCompleted)]
    assert epochs[0].phase != "head" or epochs[0].epoch > stored.epoch
    result = await read_result(second)
    assert result.stop_reason == "MAX_DURATION"
    history = json.loads(content(second, result, "metrics.json"))["history"]
    assert len(history) >= stored.epoch + len(epochs)
