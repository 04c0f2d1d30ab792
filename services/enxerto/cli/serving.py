"""`enxerto deploy`, `deployments` and `undeploy`."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from enxerto.cli.session import JsonOption, console, emit_json, emit_table, percent, plain, session, short, wrong_usage

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
TargetOption = Annotated[
    float | None, typer.Option(min=0, help="With --max-replicas: batches that a replica should be working on.")
]
UpscaleOption = Annotated[
    float | None, typer.Option(min=0, help="With --max-replicas: seconds of high load before a replica is added.")
]
DownscaleOption = Annotated[
    float | None, typer.Option(min=0, help="With --max-replicas: seconds of low load before one is removed.")
]
BatchSizeOption = Annotated[int | None, typer.Option(min=1, help="Images in one call to a replica.")]
BatchDelayOption = Annotated[float | None, typer.Option(min=0, help="Seconds that a request may wait for company.")]
PreferredOption = Annotated[
    list[int] | None, typer.Option(min=1, help="Images in one call that suit the model; may be repeated.")
]
WarmUpOption = Annotated[
    list[int] | None, typer.Option(min=1, help="Images in a call that each new replica answers first; may be repeated.")
]
PriorityOption = Annotated[
    int | None, typer.Option(min=1, help="Of requests that do not say: of what waits, 1 goes first.")
]
CacheOption = Annotated[
    int | None, typer.Option(min=0, help="Bytes of answers to keep for requests with the same content. 0 ends it.")
]


def deploy(
    context: typer.Context,
    version: Annotated[
        str, typer.Argument(help="MODEL@N, or MODEL@ALIAS, which is followed; MODEL means @production.")
    ],
    name: Annotated[str, typer.Option(help="The deployment; the model's name by default.")] = "",
    replicas: ReplicasOption = None,
    min_replicas: MinOption = 1,
    max_replicas: MaxOption = None,
    target_batches: TargetOption = None,
    upscale_delay: UpscaleOption = None,
    downscale_delay: DownscaleOption = None,
    traffic: TrafficOption = None,
    shadow: ShadowOption = "",
    batch_size: BatchSizeOption = None,
    batch_delay: BatchDelayOption = None,
    preferred_batch_size: PreferredOption = None,
    warm_up_batch_size: WarmUpOption = None,
    default_priority: PriorityOption = None,
    response_cache: CacheOption = None,
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
    settings: DeploymentSettings = {
        **_scale(replicas, min_replicas, max_replicas, target_batches, upscale_delay, downscale_delay),
        **_shares(traffic, shadow),
        **_batches(batch_size, batch_delay, preferred_batch_size, warm_up_batch_size),
        **_answers(default_priority, response_cache),
    }
    if device:
        settings["device"] = device
    if shared:
        settings["placement"] = "shared"
    if pinned:
        settings["pinned"] = True
    with (
        session(context).client() as client,
        console(stderr=True).status(plain(f"deploying {version}")),
        wrong_usage(),
    ):
        deployment = client.deploy(name, version, wait=wait, **settings)
    _show(deployment, as_json=as_json)


def update(
    context: typer.Context,
    deployment: str,
    replicas: ReplicasOption = None,
    min_replicas: MinOption = 1,
    max_replicas: MaxOption = None,
    target_batches: TargetOption = None,
    upscale_delay: UpscaleOption = None,
    downscale_delay: DownscaleOption = None,
    traffic: TrafficOption = None,
    shadow: ShadowOption = "",
    batch_size: BatchSizeOption = None,
    batch_delay: BatchDelayOption = None,
    preferred_batch_size: PreferredOption = None,
    warm_up_batch_size: WarmUpOption = None,
    default_priority: PriorityOption = None,
    response_cache: CacheOption = None,
    pinned: Annotated[
        bool | None, typer.Option("--pinned/--not-pinned", help="Shared: whether it never makes room for other models.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Change how a deployment answers without failing a request; what is left out stays as it is."""
    settings: DeploymentSettings = {
        **_scale(replicas, min_replicas, max_replicas, target_batches, upscale_delay, downscale_delay),
        **_shares(traffic, shadow),
        **_batches(batch_size, batch_delay, preferred_batch_size, warm_up_batch_size),
        **_answers(default_priority, response_cache),
    }
    if pinned is not None:
        settings["pinned"] = pinned
    if not settings:
        raise typer.BadParameter("say what is to change")
    with session(context).client() as client, wrong_usage():
        updated = client.update_deployment(deployment, **settings)
    _show(updated, as_json=as_json)


def watch(context: typer.Context, deployment: str, as_json: JsonOption = False) -> None:
    """Show a deployment as it is and after each change, until it is removed."""
    with session(context).client() as client:
        for seen in client.watch_deployment(deployment):
            _show(seen, as_json=as_json)


def _scale(
    replicas: int | None,
    least: int,
    most: int | None,
    target: float | None,
    upscale_delay: float | None,
    downscale_delay: float | None,
) -> "DeploymentSettings":
    settings: DeploymentSettings = _given(replicas=replicas)
    further = _given(target_ongoing_batches=target, upscale_delay=upscale_delay, downscale_delay=downscale_delay)
    if further and not most:
        raise typer.BadParameter("--target-batches, --upscale-delay and --downscale-delay go with --max-replicas")
    if most is not None:
        settings["autoscaling"] = _given(min_replicas=least, max_replicas=most, **further) if most else None
    return settings


def _shares(traffic: list[str] | None, shadow: str) -> "DeploymentSettings":
    from enxerto.client import parse_shares

    settings: DeploymentSettings = {}
    with wrong_usage():
        if traffic:
            settings["traffic"] = {} if traffic == [_NONE] else parse_shares(traffic)
        if shadow:
            settings["shadow"] = None if shadow == _NONE else parse_shares([shadow])
    return settings


def _batches(
    size: int | None, delay: float | None, preferred: list[int] | None, warm_up: list[int] | None
) -> "DeploymentSettings":
    batching = _given(max_size=size, max_delay=delay, preferred_sizes=preferred or None)
    settings: DeploymentSettings = _given(batching=batching or None, warm_up_batch_sizes=warm_up or None)
    return settings


def _answers(default_priority: int | None, cache_bytes: int | None) -> "DeploymentSettings":
    settings: DeploymentSettings = _given(default_priority=default_priority)
    if cache_bytes is not None:
        settings["response_cache"] = {"max_bytes": cache_bytes} if cache_bytes else None
    return settings


def _given(**options: object) -> Any:
    """Those of the options that were given."""
    return {name: value for name, value in options.items() if value is not None}


def _show(deployment: "Deployment", *, as_json: bool) -> None:
    if as_json:
        emit_json(deployment)
    else:
        console().print(_describe(deployment))


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
