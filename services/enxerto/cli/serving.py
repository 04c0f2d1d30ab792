"""`enxerto deploy`, `deployments` and `undeploy`."""

from typing import TYPE_CHECKING, Annotated

import typer

from enxerto.cli.session import JsonOption, console, emit_json, emit_table, percent, session, short

if TYPE_CHECKING:
    from enxerto.client import Deployment, DeploymentSettings

_NONE = "none"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(deploy)
    app.command()(undeploy)
    deployments = typer.Typer(help="What answers.", no_args_is_help=True)
    deployments.command("list")(list_)
    deployments.command("update")(update)
    deployments.command("watch")(watch)
    app.add_typer(deployments, name="deployments")


TrafficOption = Annotated[
    list[str] | None,
    typer.Option(
        help="MODEL@VERSION=PERCENT of the requests for another version; may be repeated. `none` ends the split."
    ),
]
ShadowOption = Annotated[
    str, typer.Option(help="MODEL@VERSION=PERCENT: a version that gets copies and answers nobody. `none` ends it.")
]
ReplicasOption = Annotated[
    int | None, typer.Option(min=1, help="Processes that share the requests; with --max-replicas, at the beginning.")
]
MinOption = Annotated[int, typer.Option(min=1, help="The load decides: never fewer.")]
MaxOption = Annotated[int | None, typer.Option(min=0, help="The load decides: never more. 0 ends it.")]
BatchSizeOption = Annotated[int | None, typer.Option(min=1, help="Images in one call to a replica.")]
BatchDelayOption = Annotated[float | None, typer.Option(min=0, help="Seconds that a request may wait for company.")]


def deploy(
    context: typer.Context,
    version: Annotated[
        str, typer.Argument(help="MODEL@N, or MODEL@ALIAS, which is followed; MODEL means @production.")
    ],
    name: Annotated[str, typer.Option(help="The deployment; the model's name by default.")] = "",
    replicas: ReplicasOption = None,
    min_replicas: MinOption = 1,
    max_replicas: MaxOption = None,
    traffic: TrafficOption = None,
    shadow: ShadowOption = "",
    batch_size: BatchSizeOption = None,
    batch_delay: BatchDelayOption = None,
    device: Annotated[str, typer.Option(help="cpu or gpu, for a new deployment.")] = "",
    shared: Annotated[
        bool, typer.Option("--shared", help="For a new deployment: share replicas that hold many models in turn.")
    ] = False,
    pinned: Annotated[bool, typer.Option("--pinned", help="Shared: never make room for other models.")] = False,
    wait: Annotated[bool, typer.Option(help="Return when the version answers.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Serve a version, or change what a deployment serves without failing a request."""
    name = name or short(version).partition("@")[0]
    settings = _settings(replicas, (min_replicas, max_replicas), traffic, shadow, (batch_size, batch_delay))
    if device:
        settings["device"] = device
    if shared:
        settings["placement"] = "shared"
    if pinned:
        settings["pinned"] = True
    with session(context).client() as client, console(stderr=True).status(f"deploying {version}"):
        deployment = client.deploy(name, version, wait=wait, **settings)
    _show(deployment, as_json=as_json)


def update(
    context: typer.Context,
    deployment: str,
    replicas: ReplicasOption = None,
    min_replicas: MinOption = 1,
    max_replicas: MaxOption = None,
    traffic: TrafficOption = None,
    shadow: ShadowOption = "",
    batch_size: BatchSizeOption = None,
    batch_delay: BatchDelayOption = None,
    pinned: Annotated[
        bool | None, typer.Option("--pinned/--not-pinned", help="Shared: whether it never makes room for other models.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Change how a deployment answers without failing a request; what is left out stays as it is."""
    settings = _settings(replicas, (min_replicas, max_replicas), traffic, shadow, (batch_size, batch_delay))
    if pinned is not None:
        settings["pinned"] = pinned
    if not settings:
        raise typer.BadParameter("say what is to change")
    with session(context).client() as client:
        _show(client.update_deployment(deployment, **settings), as_json=as_json)


def watch(context: typer.Context, deployment: str, as_json: JsonOption = False) -> None:
    """Show a deployment as it is and after each change, until it is removed."""
    with session(context).client() as client:
        for seen in client.watch_deployment(deployment):
            _show(seen, as_json=as_json)


def _settings(
    replicas: int | None,
    bounds: tuple[int, int | None],
    traffic: list[str] | None,
    shadow: str,
    batching: tuple[int | None, float | None],
) -> "DeploymentSettings":
    from enxerto.client import parse_shares

    settings: DeploymentSettings = {}
    if replicas is not None:
        settings["replicas"] = replicas
    least, most = bounds
    if most is not None:
        settings["autoscaling"] = {"min_replicas": least, "max_replicas": most} if most else None
    try:
        if traffic:
            settings["traffic"] = {} if traffic == [_NONE] else parse_shares(traffic)
        if shadow:
            settings["shadow"] = None if shadow == _NONE else parse_shares([shadow])
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    size, delay = batching
    if size is not None or delay is not None:
        settings["batching"] = {}
        if size is not None:
            settings["batching"]["max_size"] = size
        if delay is not None:
            settings["batching"]["max_delay"] = delay
    return settings


def _show(deployment: "Deployment", *, as_json: bool) -> None:
    if as_json:
        emit_json(deployment)
    else:
        console().print(_describe(deployment), markup=False)


def _describe(deployment: "Deployment") -> str:
    serving = _version(deployment.serving_version)
    text = f"{short(deployment.name)} is {deployment.state} and answers with {serving}"
    for share in deployment.traffic:
        text += f", {share.percent} % with {_version(share.serving_version)}"
    if (shadow := deployment.shadow) is not None:
        text += f"; copies of {shadow.percent} % go to {_version(shadow.serving_version)}"
        if shadow.agreement is not None:
            text += f", which agrees on {percent(shadow.agreement)} of {shadow.image_count} images"
    errors = [one.error for one in (deployment, *deployment.traffic, shadow) if one is not None and one.error]
    return "\n".join([text, *(f"  {error.message}" for error in errors)])


def _version(name: str) -> str:
    return short(name) if name else "nothing yet"


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
        ("deployment", "state", "follows", "answers with", "shares", "replicas", "error"),
        (
            (
                short(item.name),
                item.state,
                short(item.model_version),
                short(item.serving_version) if item.serving_version else "",
                ", ".join(f"{short(one.model_version)} {one.percent} %" for one in item.traffic),
                item.replicas,
                item.error.message if item.error else "",
            )
            for item in found
        ),
        "No deployments. Make one with: enxerto deploy MODEL",
    )
