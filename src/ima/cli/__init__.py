"""The command line: argument parsing and printing, nothing else."""

from __future__ import annotations

import os
import sys

from cyclopts import App

from ima import __version__
from ima.cli.streams import CLOSED, drop_output, print_anywhere
from ima.parent import watch_parent

app = App(
    name="ima",
    version=__version__,
    help="Train networks that are harder to fool with noise; measure what noise breaks them.\n\n"
    "Start with `ima compare digits`, a demonstration of a few minutes.",
)
app.command("ima.cli.train:train", name="train", help="Train one method, or continue a run.")
app.command("ima.cli.evaluate:evaluate", name="evaluate", help="What noise breaks a trained run.")
app.command("ima.cli.margins:margins", name="margins", help="What a run's margins say.")
app.command("ima.cli.compare:compare", name="compare", help="Several methods, one table.")
app.command(
    "ima.cli.equilibrium:equilibrium", name="equilibrium", help="Where margins settle: a picture."
)
app.command("ima.cli.report:report", name="report", help="What noise breaks, as a page to send on.")
app.command("ima.cli.tables:show", name="list", help="What there is: methods, attacks, ...")
data = App(name="data", help="Get public data sets, and pack them.")
data.command("ima.cli.data:get", name="get", help="Fetch a public data set and check it.")
data.command("ima.cli.data:subset", name="subset", help="What the small experiments use.")
data.command("ima.cli.data:pack", name="pack", help="The CT images as one small file.")
data.command("ima.cli.data:msd", name="msd", help="Medical Decathlon data for nnU-Net.")
app.command(data)
nnunet = App(name="nnunet", help="nnU-Net with our trainers: plan, train, predict, compare.")
nnunet.command("ima.cli.nnunet:path", name="path", help="The folder for nnUNet_extTrainer.")
nnunet.command("ima.cli.nnunet:plan", name="plan", help="nnU-Net's planning and preprocessing.")
nnunet.command("ima.cli.nnunet:train", name="train", help="nnU-Net's training.")
nnunet.command("ima.cli.nnunet:predict", name="predict", help="nnU-Net's prediction.")
nnunet.command("ima.cli.nnunet:compare", name="compare", help="A whole table, in one command.")
app.command(nnunet)

STOPPED = 130


def main() -> None:
    """Run the command line; errors that say what to do are printed without a traceback."""
    watch_parent()
    print_anywhere()
    try:
        try:
            app()
        finally:
            # Here, where an output that is closed ends quietly.
            sys.stdout.flush()
    except BrokenPipeError:
        drop_output()
        sys.exit(CLOSED)
    except (ValueError, TypeError, OSError, ArithmeticError, RuntimeError, ImportError) as error:
        said = str(error) if _explains(error) else _of_a_file(error)
        if not said:
            raise
        print(f"ima: {said}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("\nima: stopped; what is finished is saved", file=sys.stderr)
        sys.exit(STOPPED)


def _of_a_file(error: BaseException) -> str:
    """What the system refused to do with which file; empty for other errors."""
    if not isinstance(error, OSError) or error.filename is None:
        return ""
    return f"{os.fsdecode(error.filename)}: {error.strerror or error}"


def _explains(error: BaseException) -> bool:
    """Whether the error was raised by this library, whose texts say what to do."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    module = trace.tb_frame.f_globals.get("__name__", "") if trace is not None else ""
    return module.split(".")[0] == "ima"
