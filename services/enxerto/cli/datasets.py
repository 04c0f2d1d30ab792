"""`enxerto datasets`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from enxerto.cli.session import LARGEST_LONG, JsonOption, console, emit_json, emit_table, session, short

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from enxerto.client import Client, Finding, Snapshot, Statistics, ValidationReport
    from enxerto.client import Progress as RunProgress

TASKS = ("CLASSIFICATION", "DETECTION", "SEGMENTATION", "STYLE")
_SHOWN_FINDINGS = 20
_SHOWN_CLASSES = 40
_BAR = 30


def register(app: typer.Typer) -> None:
    """Add the commands."""
    datasets = typer.Typer(help="Labelled images.", no_args_is_help=True)
    datasets.command("import")(import_)
    datasets.command()(validate)
    datasets.command("list")(list_)
    datasets.command()(show)
    app.add_typer(datasets, name="datasets")
    app.command("validate")(validate_folder)


_Name = Annotated[str, typer.Argument(help="The dataset; created when it does not exist.")]
_Path = Annotated[
    str,
    typer.Argument(metavar="PATH", help="Folder, or a tar or zip of one, or s3://… or gs://…; its format is found."),
]
_Task = Annotated[
    str | None,
    typer.Option(help="CLASSIFICATION (of a new dataset by default), DETECTION, SEGMENTATION or STYLE."),
]
_ServerSide = Annotated[
    bool, typer.Option(help="PATH is on the training service's machine, below a folder that its operator allows.")
]
_Seed = Annotated[int, typer.Option(min=0, max=LARGEST_LONG, help="Seed of the split, when PATH is not split already.")]


def import_(
    context: typer.Context,
    name: _Name,
    path: _Path,
    task: _Task = None,
    server_side: _ServerSide = False,
    seed: _Seed = 0,
    as_json: JsonOption = False,
) -> None:
    """Import labelled images into a new, immutable snapshot."""
    _check(path, task, server_side=server_side)
    with session(context).client() as client:
        snapshot = import_with_progress(
            client, name, path, task=task, server_side=server_side, seed=seed, quiet=as_json
        )
    if as_json:
        emit_json(snapshot)
    else:
        show_snapshot(snapshot)


def validate(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The dataset that they are meant for; none is made of that name.")],
    path: _Path,
    task: _Task = None,
    server_side: _ServerSide = False,
    seed: _Seed = 0,
    as_json: JsonOption = False,
) -> None:
    """Look at labelled images as an import would, and say everything that is wrong with them; fails when some is."""
    _check(path, task, server_side=server_side)
    with session(context).client() as client:
        report = _validated(client, name, path, task=task, server_side=server_side, seed=seed, quiet=as_json)
    if as_json:
        emit_json(report)
    else:
        _show_report(report)
    if not report.importable:
        raise typer.Exit(1)


def validate_folder(
    context: typer.Context,
    folder: _Path,
    task: _Task = None,
    name: Annotated[str, typer.Option(help="The dataset that it is meant for; named after FOLDER by default.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Say what is wrong with a folder of labelled images before it is imported."""
    from enxerto.cli.quickstart import dataset_id

    validate(context, name or dataset_id(Path(folder)), folder, task, as_json=as_json)


def _check(path: str, task: str | None, *, server_side: bool) -> None:
    if not server_side and "://" not in path and not Path(path).exists():
        raise typer.BadParameter(f"{path} does not exist", param_hint="PATH")
    if task is not None and task.upper() not in TASKS:
        raise typer.BadParameter(f"{task!r} is not one of {', '.join(TASKS)}", param_hint="--task")


def _validated(
    client: "Client", name: str, path: str, *, task: str | None, server_side: bool, seed: int, quiet: bool
) -> "ValidationReport":
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console(stderr=True), transient=True, disable=quiet) as bars:
        bar = bars.add_task("reading", total=None)

        def uploaded(sent: int, total: int) -> None:
            bars.update(bar, completed=sent, total=total, description="uploading bytes")

        def progressed(progress: "RunProgress") -> None:
            bars.update(
                bar, completed=progress.images_done, total=progress.image_count or None, description="images looked at"
            )

        return client.validate_dataset(
            name,
            path,
            task=task,
            server_side=server_side,
            split_seed=seed,
            uploaded=uploaded,
            progressed=progressed,
        )


def _show_report(report: "ValidationReport") -> None:
    out = console()
    out.print(_counts(report.split_counts, report.statistics))
    show_findings(report.findings, report.finding_count)
    if report.statistics:
        _show_classes(report.statistics)
        _show_sizes(report.statistics)
    out.print("It can be imported." if report.importable else "It cannot be imported: see the errors above.")


def show_findings(findings: "Sequence[Finding]", count: int) -> None:
    """What was found, as a table."""
    emit_table(
        ("", "where", "what", ""),
        (
            (item.severity, f"{item.path}:{item.line}" if item.line else item.path, item.code, item.message)
            for item in findings[:_SHOWN_FINDINGS]
        ),
        "Nothing was found to be wrong.",
    )
    if count > _SHOWN_FINDINGS:
        console().print(f"and {count - min(_SHOWN_FINDINGS, len(findings))} more; --json lists them")


def _counts(splits: "Mapping[str, int]", statistics: "Statistics | None") -> str:
    images = ", ".join(f"{split} {splits[split]}" for split in sorted(splits, key=_split_order))
    if statistics is None:
        return f"images: {images}"
    return f"{statistics.format}, {statistics.annotation_count} annotations, images: {images}"


def _split_order(split: str) -> int:
    return {"train": 0, "val": 1, "test": 2}.get(split, 3)


def _show_classes(statistics: "Statistics") -> None:
    most = max((item.total for item in statistics.classes), default=0)
    emit_table(
        ("class", "train", "val", "test", ""),
        (
            (
                item.class_name,
                *(item.split_counts.get(split, 0) for split in ("train", "val", "test")),
                _bar(item.total, most),
            )
            for item in statistics.classes[:_SHOWN_CLASSES]
        ),
        "No classes.",
    )
    if (rest := len(statistics.classes) - _SHOWN_CLASSES) > 0:
        console().print(f"and {rest} classes more; --json lists them")


def _show_sizes(statistics: "Statistics") -> None:
    most = max(statistics.sizes.values(), default=0)
    emit_table(
        ("longer side, pixels", "images", ""),
        ((f"up to {side}", count, _bar(count, most)) for side, count in sorted(statistics.sizes.items())),
        "No sizes.",
    )


def _bar(count: int, most: int) -> str:
    return "█" * (max(1, round(_BAR * count / most)) if count else 0)


def import_with_progress(
    client: "Client",
    name: str,
    path: Path | str,
    *,
    task: str | None = None,
    server_side: bool = False,
    seed: int = 0,
    quiet: bool = False,
) -> "Snapshot":
    """Import a folder or an archive, showing how far the upload is."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=console(stderr=True), transient=True, disable=quiet) as progress:
        bar = progress.add_task("uploading" if not server_side else "importing", total=None)

        def uploaded(sent: int, total: int) -> None:
            done = sent == total
            progress.update(bar, completed=sent, total=total, description="checking" if done else "uploading")

        return client.import_dataset(name, path, task=task, server_side=server_side, split_seed=seed, uploaded=uploaded)


def show_snapshot(snapshot: "Snapshot") -> None:
    """Tell a person what was imported."""
    out = console()
    counts = _counts(snapshot.split_counts, snapshot.statistics)
    out.print(f"Imported {short(snapshot.name)}: {len(snapshot.class_names)} classes, {counts}")
    if snapshot.findings:
        show_findings(snapshot.findings, snapshot.finding_count)


def list_(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the datasets."""
    with session(context).client() as client:
        found = list(client.datasets())
    if as_json:
        emit_json({"datasets": found})
        return
    emit_table(
        ("dataset", "task", "newest snapshot", "created"),
        (
            (short(item.name), item.task, short(item.latest_snapshot) if item.latest_snapshot else "", item.create_time)
            for item in found
        ),
        "No datasets. Import one with: enxerto datasets import NAME FOLDER",
    )


def show(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="DATASET, or DATASET@N for an older snapshot.")],
    as_json: JsonOption = False,
) -> None:
    """Show a dataset's newest snapshot, or another one: what it holds and what was found."""
    with session(context).client() as client:
        dataset = client.dataset(name.partition("@")[0])
        number = name.partition("@")[2]
        snapshot_name = f"{dataset.name}/snapshots/{number}" if number else dataset.latest_snapshot
        snapshot = client.snapshot(snapshot_name) if snapshot_name else None
    if as_json:
        emit_json({"dataset": dataset, "snapshot": snapshot})
        return
    out = console()
    out.print(f"{short(dataset.name)}   {dataset.task}")
    if snapshot is None:
        out.print("It has no snapshot that is READY.")
        return
    out.print(f"{short(snapshot.name)}, {snapshot.state}, sha256 {snapshot.digest[:12]}")
    out.print(_counts(snapshot.split_counts, snapshot.statistics))
    show_findings(snapshot.findings, snapshot.finding_count)
    if snapshot.statistics:
        _show_classes(snapshot.statistics)
        _show_sizes(snapshot.statistics)
