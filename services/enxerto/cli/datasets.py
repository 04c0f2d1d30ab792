"""`enxerto datasets`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from enxerto.cli.session import JsonOption, console, emit_json, emit_table, session, short

if TYPE_CHECKING:
    from enxerto.client import Client, Snapshot


def register(app: typer.Typer) -> None:
    """Add the commands."""
    datasets = typer.Typer(help="Labelled images.", no_args_is_help=True)
    datasets.command("import")(import_)
    datasets.command("list")(list_)
    app.add_typer(datasets, name="datasets")


def import_(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The dataset; created when it does not exist.")],
    path: Annotated[Path, typer.Argument(help="Folder of class folders, or a tar or zip of one.")],
    server_side: Annotated[
        bool, typer.Option(help="PATH is on the training service's machine, below a folder that its operator allows.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of the split, when PATH is not split already.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Import labelled images into a new, immutable snapshot."""
    if not server_side and not path.exists():
        raise typer.BadParameter(f"{path} does not exist", param_hint="PATH")
    with session(context).client() as client:
        snapshot = import_with_progress(client, name, path, server_side=server_side, seed=seed, quiet=as_json)
    if as_json:
        emit_json(snapshot)
    else:
        show_snapshot(snapshot)


def import_with_progress(
    client: "Client", name: str, path: Path, *, server_side: bool = False, seed: int = 0, quiet: bool = False
) -> "Snapshot":
    """Import a folder or an archive, showing how far the upload is."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=console(stderr=True), transient=True, disable=quiet) as progress:
        task = progress.add_task("uploading" if not server_side else "importing", total=None)

        def uploaded(sent: int, total: int) -> None:
            done = sent == total
            progress.update(task, completed=sent, total=total, description="checking" if done else "uploading")

        return client.import_dataset(name, path, server_side=server_side, split_seed=seed, uploaded=uploaded)


def show_snapshot(snapshot: "Snapshot") -> None:
    """Tell a person what was imported."""
    out = console()
    counts = ", ".join(f"{split} {count}" for split, count in snapshot.split_counts.items())
    out.print(f"Imported {short(snapshot.name)}: {len(snapshot.class_names)} classes, images: {counts}")
    for finding in snapshot.findings[:20]:
        out.print(f"  {finding.severity} {finding.path}: {finding.message}")
    if snapshot.finding_count > 20:
        out.print(f"  and {snapshot.finding_count - 20} more; --json lists them")


def list_(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the datasets."""
    with session(context).client() as client:
        found = list(client.datasets())
    if as_json:
        emit_json({"datasets": found})
        return
    emit_table(
        ("dataset", "newest snapshot", "created"),
        (
            (short(item.name), short(item.latest_snapshot) if item.latest_snapshot else "", item.create_time)
            for item in found
        ),
        "No datasets. Import one with: enxerto datasets import NAME FOLDER",
    )
