"""`train`, `eval` and `report`."""

import argparse
import os
import shlex
import sys
import warnings
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

from .parts import Commands, add_reading, at_least, command, print_json, print_table, reading, run, seconds


def add_commands(commands: Commands) -> None:
    """Declare them."""
    parser = command(commands, train, "train a network and measure it on held-out images", json=True)
    parser.add_argument("--network", help="see `convatlas list`; chosen by the images' size if not given")
    parser.add_argument("--size", type=at_least(1), help="side of the input in pixels; chosen if not given")
    parser.add_argument("--out", metavar="FOLDER", help="the run's folder (default: runs/DATA-NETWORK-SEED)")
    parser.add_argument("--pretrained", metavar="WEIGHTS", help="start from a run, a weights file or a name of a hub")
    parser.add_argument("--seed", type=int, default=0, help="of weights, order and augmentation (default: 0)")
    add_data(parser, default="digits")
    parser.add_argument("--workers", type=at_least(0), default=0, help="processes that read images (default: 0, none)")
    parser.add_argument("--read-timeout", type=seconds, default=120, help="seconds an image may take (default: 120)")
    parser.add_argument("--save-every", type=seconds, default=300, help="seconds between checkpoints (default: 300)")
    diverged = "steps in a row that may not be finite before training ends, diverged (default: 3)"
    parser.add_argument("--max-bad-steps", type=at_least(1), default=3, help=diverged)
    again = "compute these modules again instead of keeping them, for memory: 'block*' of a DenseNet, 'stage*.*'"
    parser.add_argument("--recompute", metavar="MODULES", default="", help=again)
    add_machine(parser)
    processes = "train in so many processes of this machine (default: 1; with torchrun: its own)"
    parser.add_argument("--processes", type=at_least(1), default=1, help=processes)
    silence = "seconds after which a silent process of several counts as lost (default: 60)"
    parser.add_argument("--timeout", type=seconds, default=60, help=silence)
    sharing = "let each of several processes keep a part of the weights only (FSDP2)"
    parser.add_argument("--shard", action="store_true", help=sharing)
    add_recipe(parser)
    parser = command(commands, eval_, "measure a trained network on images", json=True)
    parser.add_argument("model", help="a model.safetensors, or the folder of a run")
    parser.add_argument("--part", choices=("train", "val", "test"), default="test", help="(default: test)")
    add_data(parser, default=None)
    add_machine(parser)
    parser = command(commands, report, "write the report of a run, one HTML page")
    parser.add_argument("folder", metavar="RUN", help="the folder that `convatlas train` wrote")


def add_data(parser: argparse.ArgumentParser, default: str | None) -> None:
    """Where images come from and what may be wrong with them."""
    shown = default or "the run's own"
    names = "digits, cifar10, cifar100, mnist, fashion-mnist, imagenet"
    what = f"a folder, archive, Parquet, WebDataset, or {names} (default: {shown})"
    parser.add_argument("--data", default=default, help=what)
    parser.add_argument("--split-seed", type=int, default=0, help="of the parts cut from the data (default: 0)")
    policies = "stop at once, leave it out, or find out when it is read (default: fail)"
    parser.add_argument("--on-bad-file", choices=("fail", "skip", "lazy"), default="fail", help=policies)
    animated = "use the first frame, or take it for a bad file (default: first)"
    parser.add_argument("--on-animated", choices=("first", "fail"), default="first", help=animated)
    add_reading(parser)


def add_machine(parser: argparse.ArgumentParser) -> None:
    """What it runs on."""
    parser.add_argument("--device", help="cpu, cuda, ... (default: the GPU if there is one)")
    parser.add_argument("--threads", type=at_least(1), help="of one operation on the CPU (default: one a core)")


def add_recipe(parser: argparse.ArgumentParser) -> None:
    """A flag for every field of a recipe."""
    from ..train.recipe import Recipe

    group = parser.add_argument_group("recipe", "a file, or one that comes with convatlas, and changes to it")
    group.add_argument("--recipe", metavar="FILE", help="a .yaml or .toml file, or a name of `convatlas recipes`")
    for f in fields(Recipe):
        kinds = get_args(f.type)
        kind: Any = (kinds or (f.type,))[0]
        options: dict[str, Any] = {"type": kind, "nargs": "+" if kinds else None, "metavar": kind.__name__.upper()}
        if kind is bool:
            options = {"action": argparse.BooleanOptionalAction}
        elif f.metadata["choices"]:
            options = {"choices": f.metadata["choices"]}
        name = f"--{f.name.replace('_', '-')}"
        group.add_argument(name, dest=f"recipe_{f.name}", default=None, help=f.metadata["help"], **options)


def opening(args: argparse.Namespace, console: Any) -> dict[str, Any]:
    """The arguments for opening data."""
    from ..train.progress import Reading

    return {
        "split_seed": args.split_seed,
        "on_bad_file": args.on_bad_file,
        "on_animated": args.on_animated,
        **reading(args),
        "progress": Reading(console),
    }


def set_up(args: argparse.Namespace, *, shows: bool = True) -> Any:
    """Threads, and the console on standard error that progress and remarks go to, if this process shows them."""
    import torch
    from rich.console import Console

    from ..train.job import own_threads

    threads = args.threads or own_threads()
    if threads:
        torch.set_num_threads(threads)
    if not shows:
        warnings.simplefilter("ignore")
    wide = None if sys.stderr.isatty() else 200  # a log file has no width
    return Console(stderr=True, width=wide, highlight=False, quiet=not shows)


def train(args: argparse.Namespace) -> int | None:
    """Choose what is not given, train, measure, report: here, as one process of a job, or in several started here."""
    from ..train.fit import pick_device
    from ..train.job import join, own_device
    from ..train.task import Machine

    device = own_device(pick_device(args.device))
    if args.processes > 1 and "RANK" not in os.environ:
        from ..train.launch import launch

        return launch(run, args, args.processes, fork=device == "cpu" and sys.platform == "linux")
    with join(device, args.timeout, shard=args.shard) as world:
        machine = Machine(
            device=device,
            workers=args.workers,
            save_every=args.save_every,
            read_timeout=args.read_timeout,
            max_bad_steps=args.max_bad_steps,
            recompute=args.recompute,
            world=world,
        )
        return train_on(machine, args)


def train_on(machine: Any, args: argparse.Namespace) -> None:
    """The part of this process; the leading one prints and writes the report."""
    from ..report import write_report
    from ..train.fit import fit, plan
    from ..train.fsdp import refuse_what_cannot_be_sharded
    from ..train.memory import keep_freed_memory
    from ..train.progress import Bar
    from ..train.run import Run

    if args.owns_process:
        keep_freed_memory()
    leads = machine.world.leads
    console = set_up(args, shows=leads)
    given = {name: value for name, value in vars(args).items() if name.startswith("recipe_") and value is not None}
    overrides = {
        name.removeprefix("recipe_"): tuple(value) if isinstance(value, list) else value
        for name, value in given.items()
    }
    planned = plan(
        args.data,
        network=args.network,
        size=args.size,
        recipe=args.recipe,
        overrides=overrides,
        pretrained=args.pretrained,
        seed=args.seed,
        device=machine.device,
        **opening(args, console),
    )
    splits, arch, recipe = planned.task.splits, planned.task.arch, planned.task.recipe
    if args.shard:
        refuse_what_cannot_be_sharded(recipe)
    parts = ", ".join(f"{part} {len(getattr(splits, part)):,}" for part in ("train", "val", "test"))
    console.print(f"{splits.name}: {len(splits.classes)} classes; {parts} images ({splits.how})")
    for warning in splits.warnings:
        console.print(f"[yellow]warning:[/] {warning}")
    console.print(f"{arch.name}, recipe {planned.recipe_name}, seed {args.seed}, on {machine.device}: {planned.why}")
    scaling = f": {planned.scaling}" if planned.scaling else ""
    console.print(f"batches of {batch_in_parts(recipe, machine.world.size)}, lr {recipe.lr:g}{scaling}")

    folder = Path(args.out or f"runs/{splits.name}-{arch.name}-{args.seed}").expanduser()
    bar = Bar(console, folder if leads else None)
    command = shlex.join(["convatlas", *sys.argv[1:]])
    try:
        result = fit(planned, Run(folder), bar, machine, command=command)
    finally:
        bar.end()
    if not leads:
        return None
    page = write_report(folder)
    if args.json:
        return print_json(result)
    test = result["test"]
    print(f"test accuracy {test['accuracy']:.2%} of {test['images']} images, loss {test['loss']:.4f}")
    print(f"model  {folder / 'model.safetensors'}\nreport {page}")
    return None


def batch_in_parts(recipe: Any, processes: int) -> str:
    """`128` images, or how they are shared out: `128 (2 processes x 4 parts x 16)`."""
    factors = ((processes, "processes"), (recipe.accumulate, "parts"))
    shared = [f"{count} {name}" for count, name in factors if count > 1]
    each = recipe.batch / processes / recipe.accumulate
    return f"{recipe.batch}" + (f" ({' x '.join([*shared, f'{each:g}'])})" if shared else "")


def eval_(args: argparse.Namespace) -> None:
    """Measure on one part of the data; of a run's own data, exactly its parts."""
    from ..train.measure import measure

    console = set_up(args)
    bundle, predictions, how = measure(
        args.model, args.data, part=args.part, device=args.device, **opening(args, console)
    )
    metrics = predictions.metrics()
    if args.json:
        return print_json({"model": args.model, "network": bundle.spec.name, "part": args.part, "how": how, **metrics})
    console.print(f"{bundle.spec.name} on {args.part}: {how}")
    images = len(predictions.labels)
    rows = [
        ("accuracy", f"{metrics['accuracy']:.2%}", f"{round(metrics['accuracy'] * images):,} of {images:,}"),
        ("top 5", f"{metrics['top5']:.2%}", ""),
        ("loss", f"{metrics['loss']:.4f}", "nats"),
        ("calibration error", f"{metrics['calibration_error']:.4f}", ""),
    ]
    return print_table(("figure", "value #", ""), rows)


def report(args: argparse.Namespace) -> None:
    """The page of a finished run."""
    from ..report import write_report

    print(write_report(Path(args.folder)))
