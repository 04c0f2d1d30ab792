"""`enxerto deploy`, `deployments`, `undeploy` and `predict`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from enxerto.cli.session import JsonOption, console, emit_json, emit_table, percent, session, short

if TYPE_CHECKING:
    from enxerto.client import Client, Deployment


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(deploy)
    app.command()(undeploy)
    app.command()(predict)
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


def predict(
    context: typer.Context,
    images: Annotated[list[Path], typer.Argument(help="JPEG, PNG, WebP or BMP files.", exists=True, dir_okay=False)],
    deployment: Annotated[
        str, typer.Option(help="The deployment to ask; may be left out when there is just one.")
    ] = "",
    top_k: Annotated[int, typer.Option(min=1, help="Classes to show for each image.")] = 3,
    as_json: JsonOption = False,
) -> None:
    """Say what is in each image."""
    with session(context).client() as client:
        answers = client.classify(deployment or _only_deployment(client), images, top_k=top_k)
    if as_json:
        pairs = zip(images, answers, strict=True)
        emit_json({"predictions": [{"image": image, "answer": answer} for image, answer in pairs]})
        return
    for image, answer in zip(images, answers, strict=True):
        rest = ", ".join(f"{item.label} {percent(item.probability)}" for item in answer.categories)
        console().print(f"{image}: {rest}   ({short(answer.model_version)})", markup=False)


def _only_deployment(client: "Client") -> str:
    names = [item.name for item in client.deployments(2)]
    if len(names) != 1:
        known = "there is none" if not names else "there are several"
        raise typer.BadParameter(f"say which one: {known}; see `enxerto deployments list`", param_hint="--deployment")
    return names[0]
