"""A run's live display, and what Ctrl-C means while it is shown."""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

from enxerto.cli.interrupts import Interrupts
from enxerto.cli.session import SCORES, console, emit_json, percent, plain, short

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

    from enxerto.client import Client, Event, Run
    from enxerto.client import Progress as RunProgress


def follow(client: "Client", run: "Run", *, as_json: bool, after_cursor: int = 0) -> "Run":
    """Show a run's events until it ends, and return it as it is then.

    Ctrl-C asks whether to cancel the run, to stop watching, or to go on; without a terminal it stops watching.
    """
    cursor = after_cursor
    while True:
        try:
            for seen in _shown(client, run, cursor, as_json=as_json):
                cursor = seen
            return client.run(run.name)
        except KeyboardInterrupt:
            if as_json or not sys.stdin.isatty():
                raise
            answer = _ask(run)
            if answer == "s":
                console().print(f"{short(run.name)} goes on. Watch it with: enxerto runs watch {short(run.name)}")
                raise typer.Exit(0) from None
            if answer == "c":
                client.cancel(run)


def _ask(run: "Run") -> str:
    from rich.prompt import Prompt

    question = f"\n(c)ancel {short(run.name)}, (s)top watching and let it go on, or (w)atch on?"
    # A second Ctrl-C at the question stops watching: the run is only ever cancelled on purpose.
    try:
        return Prompt.ask(plain(question), choices=["c", "s", "w"], default="w", console=console(stderr=True))
    except (KeyboardInterrupt, EOFError):
        return "s"


def _shown(client: "Client", run: "Run", after_cursor: int, *, as_json: bool) -> Iterator[int]:
    """Show each event and yield its cursor."""
    events = client.watch(run, after_cursor=after_cursor)
    if as_json:
        for event in events:
            emit_json(event)
            yield event.cursor
        return
    out = console(stderr=True)
    if not out.is_terminal:
        phase = ""
        for event in events:
            if event.kind == "progress" and event.progress and event.progress.phase != phase:
                phase = event.progress.phase
                out.print(phase)
            if line := _line(event):
                out.print(line)
            yield event.cursor
        return
    with Interrupts() as interrupts, _bars() as bars:
        task = bars.add_task("waiting", total=None, rate="", measured="", eta="")
        for event in interrupts.each(events):
            if (line := _line(event)) and _stays(event):
                bars.console.print(line)
            if event.state is not None:
                bars.update(task, description=event.state.lower())
            if event.progress is not None:
                _advance(bars, task, event.progress)
            if event.kind == "epoch":
                bars.update(task, measured=_measured(event, ("val",)))
            yield event.cursor


def _stays(event: "Event") -> bool:
    """Whether an event keeps a line on the screen: of many epochs about ten do, and the last."""
    if event.kind != "epoch" or event.progress is None:
        return True
    step = max(1, event.progress.epoch_count // 10)
    return event.progress.epoch % step == 0 or event.progress.epoch == event.progress.epoch_count


def _bars() -> "Bars":
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[measured]}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[eta]}"),
        console=console(stderr=True),
        transient=True,
    )


def _advance(bars: "Bars", task: "int", progress: "RunProgress") -> None:
    from rich.progress import TaskID

    phase = progress.phase
    # An epoch on stored features takes milliseconds: its images would only flicker.
    by_image = progress.image_count > 0 and progress.images_done < progress.image_count
    if progress.epoch_count and not by_image:
        done, total = progress.epoch, progress.epoch_count
    else:
        done, total = progress.images_done, progress.image_count
        if progress.epoch_count:
            phase += f" {min(progress.epoch + 1, progress.epoch_count)}/{progress.epoch_count}"
    bars.update(
        TaskID(task),
        description=phase,
        completed=done,
        total=total or None,
        rate=_speed(progress),
        eta=f"about {duration(progress.eta_s)} left" if progress.eta_s is not None else "",
    )


def _speed(progress: "RunProgress") -> str:
    images = f"{progress.images_per_second:.0f} images/s" if progress.images_per_second else ""
    step = (
        f"step {progress.step}/{progress.step_count}, rate {progress.learning_rate:.2g}" if progress.step_count else ""
    )
    return ", ".join(part for part in (images, step) if part)


def duration(seconds: float) -> str:
    """A span for people."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes_left} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _line(event: "Event") -> str:
    """What stays on the screen of an event; empty for mere progress."""
    match event.kind:
        case "state":
            text = f"{event.state}"
            if event.model_version:
                text += f" {short(event.model_version)}"
            return text + (f": {event.error.message}" if event.error else "")
        case "epoch":
            progress = event.progress
            where = f"{progress.phase} epoch {progress.epoch}/{progress.epoch_count}" if progress else "epoch"
            parts = [where, _measured(event, ("train", "val"))]
            if progress and progress.images_per_second:
                parts.append(f"{progress.images_per_second:.0f} images/s")
            return "  ".join(parts)
        case "log":
            return f"{event.severity}: {event.message}"
        case _:
            return ""


def _measured(event: "Event", splits: tuple[str, ...]) -> str:
    parts = []
    for split in splits:
        loss = event.metric("loss", split)
        score = next((name for name in SCORES if event.metric(name, split) is not None), "")
        measured = [f"loss {loss:.3f}"] if loss is not None else []
        if score:
            measured.append(f"{score} {percent(event.metric(score, split))}")
        if measured:
            parts.append(f"{split} {', '.join(measured)}")
    return "  ".join(parts)
