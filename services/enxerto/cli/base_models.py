"""`enxerto base-models` and `recommend`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from enxerto.cli.session import LARGEST_INT, JsonOption, console, emit_json, emit_table, percent, plain, session, short

if TYPE_CHECKING:
    from enxerto.client import Progress


def register(app: typer.Typer) -> None:
    """Add the commands."""
    base_models = typer.Typer(help="Networks to start from.", invoke_without_command=True)
    base_models.callback()(default)
    base_models.command("list")(list_)
    base_models.command()(show)
    base_models.command("import")(import_)
    app.add_typer(base_models, name="base-models")
    app.command()(recommend)


_Task = Annotated[str | None, typer.Option(help="Only those of this task.")]
_Search = Annotated[str, typer.Option(help="Only those whose name contains this, timm's too.")]


def default(context: typer.Context, task: _Task = None, search: _Search = "", as_json: JsonOption = False) -> None:
    """List the networks that a run may start from; see also `show` and `import`."""
    if context.invoked_subcommand is None:
        list_(context, task, search, as_json)


def list_(context: typer.Context, task: _Task = None, search: _Search = "", as_json: JsonOption = False) -> None:
    """List the networks that a run may start from; timm's thousands only with `--search`."""
    with session(context).client() as client:
        found = [item for item in client.base_models(search) if task is None or item.task == task.upper()]
    if as_json:
        emit_json({"base_models": found})
        return
    emit_table(
        ("base model", "task", "parameters", "library", "weights", "licence"),
        (
            (
                short(item.name),
                item.task.lower(),
                f"{item.parameter_count / 1e6:.1f} M" if item.parameter_count else "any encoder",
                item.library + (f" ({item.required_extra} extra)" if item.required_extra else ""),
                "imported" if item.imported_weights else "offline" if item.offline else "download",
                item.licence.partition(":")[0],
            )
            for item in found
        ),
        "No base models.",
    )


def show(context: typer.Context, name: str, as_json: JsonOption = False) -> None:
    """Show one network with its stages, which "the last N stages" counts from the end."""
    with session(context).client() as client:
        item = client.base_model(name)
    if as_json:
        emit_json(item)
        return
    out = console()
    height, width = item.image_size
    out.print(f"{short(item.name)}   {item.display_name}")
    out.print(f"task       {item.task}")
    out.print(
        f"library    {item.library}" + (f", needs the extra {item.required_extra}" if item.required_extra else "")
    )
    out.print(f"licence    {item.licence}")
    out.print(f"size       {item.parameter_count / 1e6:.1f} M parameters, {item.feature_dim} features")
    out.print(f"input      {height} x {width}" + (", takes any encoder (--encoder)" if item.takes_encoder else ""))
    out.print(f"stages     {', '.join(item.stages)}")
    if item.imported_weights:
        out.print(f"weights    imported, sha256 {item.imported_weights[:12]}")
    else:
        out.print(f"weights    {'in an installed package' if item.offline else 'a download'}")


def import_(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The base model; see `enxerto base-models`.")],
    file: Annotated[
        Path, typer.Argument(help=".safetensors, or the published .pth.", exists=True, dir_okay=False, readable=True)
    ],
    as_json: JsonOption = False,
) -> None:
    """Bring in weights whose download is not possible; from then on every project has them."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with (
        session(context).client() as client,
        Progress(*columns, console=console(stderr=True), transient=True, disable=as_json) as bars,
    ):
        bar = bars.add_task("uploading", total=None)

        def uploaded(sent: int, total: int) -> None:
            done = sent == total
            bars.update(bar, completed=sent, total=total, description="checking" if done else "uploading")

        item = client.import_base_model(name, file, uploaded=uploaded)
    if as_json:
        emit_json(item)
    else:
        console().print(f"{short(item.name)} has its weights: sha256 {item.imported_weights[:12]}")


def recommend(
    context: typer.Context,
    dataset: Annotated[str, typer.Argument(help="The dataset, DATASET@N for an older snapshot; classification only.")],
    base_model: Annotated[
        list[str] | None, typer.Option(help="Probe this one; may be repeated. All whose weights are there by default.")
    ] = None,
    max_images: Annotated[
        int, typer.Option(min=0, max=LARGEST_INT, help="Images to probe with; 0 is the service's default.")
    ] = 0,
    as_json: JsonOption = False,
) -> None:
    """Probe base models on a dataset and rank them by accuracy and cost, before hours are spent on one."""
    with session(context).client() as client, console(stderr=True).status("probing") as status:

        def progressed(progress: "Progress") -> None:
            text = f"probing: {progress.phase} {progress.images_done} of {progress.image_count} images"
            status.update(plain(text))

        ranking = client.recommend(dataset, base_models=base_model or (), max_images=max_images, progressed=progressed)
    if as_json:
        emit_json(ranking)
        return
    emit_table(
        ("base model", "linear probe", "10 neighbours", "ms an image", "parameters"),
        (
            (
                short(item.base_model),
                percent(item.probe_accuracy),
                percent(item.knn_accuracy),
                f"{1000 * item.time_per_image_s:.1f}",
                f"{item.parameter_count / 1e6:.1f} M",
            )
            for item in ranking.scores
        ),
        "No base model could be probed.",
    )
    for name, why in ranking.skipped.items():
        console().print(f"skipped {short(name)}: {why}")
    if ranking.scores:
        best = short(ranking.scores[0].base_model)
        console().print(f"Train with the first: enxerto train {dataset} --base-model {best}")
