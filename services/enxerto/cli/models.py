"""`enxerto models`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from enxerto.cli.session import (
    JsonOption,
    console,
    emit_json,
    emit_table,
    percent,
    result,
    session,
    short,
    show_files,
    show_metrics,
)

if TYPE_CHECKING:
    from enxerto.client import Model, Version

_VersionArgument = Annotated[str, typer.Argument(help="MODEL@N or MODEL@ALIAS, such as flowers@3.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    models = typer.Typer(help="Models and their versions.", no_args_is_help=True)
    models.command("list")(list_)
    models.command()(show)
    models.command()(promote)
    models.command()(download)
    app.add_typer(models, name="models")


def list_(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the models."""
    with session(context).client() as client:
        found = list(client.models())
    if as_json:
        emit_json({"models": found})
        return
    emit_table(
        ("model", "task", "newest", "aliases", "updated"),
        (
            (
                short(model.name),
                model.task,
                short(model.latest_version) if model.latest_version else "",
                _aliases(model),
                model.update_time,
            )
            for model in found
        ),
        "No models. Train one with: enxerto train DATASET",
    )


def _aliases(model: "Model") -> str:
    return ", ".join(f"{alias} → {short(version)}" for alias, version in sorted(model.aliases.items()))


def show(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="MODEL for the model and its versions, MODEL@N or MODEL@ALIAS for one.")],
    as_json: JsonOption = False,
) -> None:
    """Show a model with its versions, or one version with its lineage and files."""
    with session(context).client() as client:
        if "@" in name or "/versions/" in name:
            version = client.version(name)
            if as_json:
                emit_json(version)
            else:
                _show_version(version)
            return
        model, versions = client.model(name), list(client.versions(name, 100))
    if as_json:
        emit_json({"model": model, "versions": versions})
        return
    console().print(f"{short(model.name)}   {_aliases(model)}")
    emit_table(
        ("version", "state", "result", "from", "weights", "run", "created"),
        (
            (
                short(version.name),
                version.state,
                result(version.metrics),
                short(version.lineage.base_model),
                version.lineage.weights_source or "none",
                short(version.lineage.training_run),
                version.create_time,
            )
            for version in versions
        ),
        "No versions.",
    )


def _show_version(version: "Version") -> None:
    out, lineage = console(), version.lineage
    out.print(f"version    {short(version.name)}, {version.task}, {version.state}")
    out.print(f"classes    {', '.join(version.class_names)}")
    out.print(f"data       {short(lineage.snapshot)}, sha256 {lineage.snapshot_digest[:12]}")
    out.print(f"from       {short(lineage.base_model)}, weights: {lineage.weights_source or 'none'}, {lineage.licence}")
    out.print(f"run        {short(lineage.training_run)}")
    show_metrics(version.metrics)
    if parity := version.parity:
        out.print(
            f"export     agreement {percent(parity.agreement)} on {parity.sample_count} images, "
            f"largest difference {parity.max_abs_difference:.1e}"
        )
    emit_table(
        ("file", "role", "bytes", "sha256"),
        ((item.filename, item.role, item.size_bytes, item.sha256[:12]) for item in version.artifacts),
        "No files.",
    )


def promote(
    context: typer.Context,
    version: _VersionArgument,
    alias: Annotated[str, typer.Option(help="The alias to move.")] = "production",
    as_json: JsonOption = False,
) -> None:
    """Point an alias to a version; deployments that name the alias follow."""
    with session(context).client() as client:
        model = client.promote(version, alias)
    if as_json:
        emit_json(model)
    else:
        console().print(f"{short(model.name)}: {alias} → {short(model.aliases[alias])}")


def download(
    context: typer.Context,
    version: _VersionArgument,
    folder: Annotated[Path, typer.Argument(help="Where to put the files.")] = Path(),
    as_json: JsonOption = False,
) -> None:
    """Download a version's files and check their sha256."""
    with session(context).client() as client:
        files = client.download(version, folder)
    show_files(files, as_json=as_json)
