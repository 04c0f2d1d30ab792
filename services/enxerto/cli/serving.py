"""`enxerto deploy`, `deployments` and `undeploy`."""

from typing import TYPE_CHECKING, Annotated

import typer

from enxerto.cli.session import JsonOption, console, emit_json, emit_table, session, short

if TYPE_CHECKING:
    from enxerto.client import Deployment


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(deploy)
    app.command()(undeploy)
    deployments = typer.Typer(help="What answers.", no_args_is_help=True)
    deployments.command("list")(list_)
    app.add_typer(deployments, name="deployments")


def deploy(
    context: typer.Context,
    version: Annotated[
        str, typer.Argument(help="MODEL@N, or MODEL@ALIAS, which is followed; MODEL means @production.")
    ],
    name: Annotated[str, typer.Option(help="The deployment; the model's name by default.")] = "",
    replicas: Annotated[int, typer.Option(min=1, help="Processes that share the requests.")] = 1,
    wait: Annotated[bool, typer.Option(help="Return when the version answers.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Serve a version, or change what a deployment serves without failing a request."""
    name = name or short(version).partition("@")[0]
    with session(context).client() as client, console(stderr=True).status(f"deploying {version}"):
        deployment = client.deploy(name, version, replicas=replicas, wait=wait)
    if as_json:
        emit_json(deployment)
    else:
        console().print(_describe(deployment))


def _describe(deployment: "Deployment") -> str:
    serving = short(deployment.serving_version) if deployment.serving_version else "nothing yet"
    return f"{short(deployment.name)} is {deployment.state} and answers with {serving}"


def undeploy(context: typer.Context, deployment: str, as_json: JsonOption = False) -> None:
    """Drain and remove a deployment."""
    with session(context).client() as client:
        client.undeploy(deployment)
    if as_json:
        emit_json({"removed": deployment})
    else:
        console().print(f"{deployment} is removed")


def list_(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the deployments."""
    with session(context).client() as client:
        found = list(client.deployments())
    if as_json:
        emit_json({"deployments": found})
        return
    emit_table(
        ("deployment", "state", "follows", "answers with", "replicas", "error"),
        (
            (
                short(item.name),
                item.state,
                short(item.model_version),
                short(item.serving_version) if item.serving_version else "",
                item.replicas,
                item.error.message if item.error else "",
            )
            for item in found
        ),
        "No deployments. Make one with: enxerto deploy MODEL",
    )
