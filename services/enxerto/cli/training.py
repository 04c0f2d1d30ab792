"""`enxerto train`."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from enxerto.cli.runs import finish
from enxerto.cli.session import JsonOption, console, emit_json, plain, session, short, wrong_usage

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from enxerto.client import Client, Estimate, Progress, TrainingSettings

SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="Any field of TrainingSpec by its name: loss.label_smoothing=0.1, stop.max_duration=600 (seconds). "
        "May be repeated.",
    ),
]
BaseModelOption = Annotated[str, typer.Option(help="Network to start from; see `enxerto base-models`.")]
ModelOption = Annotated[str, typer.Option(help="Register the version under this model; the dataset's name by default.")]
DatasetArgument = Annotated[str, typer.Argument(help="The dataset, DATASET@N for an older snapshot.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(train)


def train(
    context: typer.Context,
    dataset: DatasetArgument,
    model: ModelOption = "",
    base_model: BaseModelOption = "efficientnet-lite0",
    encoder: Annotated[str | None, typer.Option(help="Backbone of a base model that takes any.")] = None,
    weights: Annotated[str | None, typer.Option(help="PRETRAINED or NONE.")] = None,
    strategy: Annotated[str | None, typer.Option(help="FEATURE_EXTRACTION or FINE_TUNE.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training split.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a step, over all workers.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Side of the input in pixels.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate of the head.")] = None,
    backbone_learning_rate_ratio: Annotated[
        float | None, typer.Option(help="Backbone's learning rate divided by the head's.")
    ] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Not negative.")] = None,
    optimizer: Annotated[str | None, typer.Option(help="ADAMW or SGD.")] = None,
    schedule: Annotated[str | None, typer.Option(help="COSINE, LINEAR, STEP, CONSTANT or ONE_CYCLE.")] = None,
    warmup_fraction: Annotated[float | None, typer.Option(help="Share of the steps over which the rate rises.")] = None,
    unfreeze_stages: Annotated[
        int | None, typer.Option(help="FINE_TUNE: stages that learn, counted from the output; 0 means all.")
    ] = None,
    augment: Annotated[str | None, typer.Option(help="NONE, LIGHT or RANDAUGMENT.")] = None,
    early_stopping_patience: Annotated[
        int | None, typer.Option(help="Epochs without a better validation result before the run stops; 0 means never.")
    ] = None,
    max_minutes: Annotated[
        float | None, typer.Option(help="Stop at the step that exceeds this, and keep the best so far.")
    ] = None,
    quantize: Annotated[str | None, typer.Option(help="DYNAMIC_INT8, STATIC_INT8 or FP16.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of every random choice.")] = None,
    workers: Annotated[int | None, typer.Option(help="Workers that train together.")] = None,
    assignments: SetOption = None,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Measure a few steps and say what the run would take; start nothing.")
    ] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Start the run and do not watch it.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Train a model on a dataset and register the version. With --json, prints the events and at last the run."""
    from enxerto.cli.watching import follow

    chosen: dict[str, Any] = {
        "encoder": encoder,
        "weights": weights,
        "strategy": strategy,
        "epochs": epochs,
        "batch_size": batch_size,
        "image_size": image_size,
        "learning_rate": learning_rate,
        "backbone_learning_rate_ratio": backbone_learning_rate_ratio,
        "weight_decay": weight_decay,
        "optimizer": optimizer,
        "schedule": schedule,
        "warmup_fraction": warmup_fraction,
        "unfreezing.stages": unfreeze_stages,
        "augmentation.policy": augment,
        "stop.early_stopping_patience": early_stopping_patience,
        "stop.max_duration": None if max_minutes is None else 60 * max_minutes,
        "quantization.mode": quantize,
        "seed": seed,
        "num_workers": workers,
    }
    settings = read_settings(chosen, assignments or ())
    name = model or model_of(dataset)
    with session(context).client() as client:
        if estimate:
            _estimate(client, dataset, name, base_model, settings, as_json=as_json)
            return
        run = client.train(dataset, model=name, base_model=base_model, **settings)
        if not as_json:
            console().print(f"Started run {short(run.name)}.")
        if detach:
            finish(run, as_json=as_json)
            return
        finish(follow(client, run, as_json=as_json), as_json=as_json)


def read_settings(chosen: "Mapping[str, Any]", assignments: "Iterable[str]") -> "TrainingSettings":
    """Options and `--set` in one; `--set` wins. What cannot be meant is wrong usage."""
    from enxerto.client import parse_settings

    options = [f"{path}={value}" for path, value in chosen.items() if value is not None]
    with wrong_usage():
        return parse_settings([*options, *assignments])


def model_of(dataset: str) -> str:
    """The model that a dataset's versions are registered under when nothing else is said."""
    return dataset.partition("@")[0].partition("/snapshots/")[0].rpartition("/")[2]


def _estimate(
    client: "Client", dataset: str, model: str, base_model: str, settings: "TrainingSettings", *, as_json: bool
) -> None:
    with console(stderr=True).status("measuring") as status:

        def progressed(progress: "Progress") -> None:
            status.update(plain(f"measuring: {progress.phase}"))

        found = client.estimate(dataset, model=model, base_model=base_model, progressed=progressed, **settings)
    if as_json:
        emit_json(found)
    else:
        _show_estimate(found)


def _show_estimate(found: "Estimate") -> None:
    from enxerto.cli.watching import duration

    out = console()
    out.print(f"time       about {duration(found.duration_s)}, an epoch {duration(found.epoch_duration_s)}")
    out.print(f"speed      {found.images_per_second:.0f} images/s on {found.device}")
    memory = f"{found.memory_bytes / 2**30:.2f} GiB"
    if found.gpu_memory_bytes:
        memory += f", {found.gpu_memory_bytes / 2**30:.2f} GiB of the GPU"
    out.print(f"memory     {memory} a worker")
    out.print(f"measured   {found.measured_steps} steps; the queue and an early stop are not counted")
