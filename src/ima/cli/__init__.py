"""The command line: argument parsing and printing, nothing else."""

from __future__ import annotations

import os
import sys

from cyclopts import App

import ima
from ima.cli.streams import CLOSED, check_words, drop_output, print_anywhere
from ima.cores import keep_freed
from ima.parent import watch_parent

app = App(
    name="ima",
    version=lambda: ima.__version__,
    help="Train networks that are harder to fool with noise; measure what noise breaks them.\n\n"
    "Start with `ima compare digits`, a demonstration of a few minutes.",
)
app.command("ima.cli.train:train", name="train", help="Train one method, or continue a run.")
app.command(
    "ima.cli.evaluate:evaluate",
    name="evaluate",
    help="Measure what noise breaks a trained network.\n\n"
    "For a run, give its folder. For a network from elsewhere, give its file of weights, --model, "
    "--data and --eps. For a trained nnU-Net, give --nnunet FOLDER.\n\n"
    "Finished batches are kept: after a stop, the same command continues.",
)
app.command(
    "ima.cli.harden:harden",
    name="harden",
    help="Make a trained network harder to fool, and say whether it worked.\n\n"
    "Trains it by the library's default method, with nothing to tune. Held-out samples decide: "
    "better means that the mean accuracy over no noise and three sizes of noise rose beyond the "
    "95 % interval of the paired differences and, with --clean-drop, that accuracy without noise "
    "fell by no more than that. Writes weights in the layout of the old ones, and a page of before "
    "and after. Where nothing better was found it says so, writes no weights, and ends with exit "
    "code 3. After a kill, the same command continues.",
)
app.command(
    "ima.cli.margins:margins",
    name="margins",
    help="Draw a run's margins, and measure how true they are.\n\n"
    "Writes the folder `margins` of the run. Needs a method that keeps margins, such as ima.",
)
app.command(
    "ima.cli.compare:compare",
    name="compare",
    help="Train and test several methods, and make one table.\n\n"
    "After a stop, the same command continues.",
)
app.command(
    "ima.cli.equilibrium:equilibrium",
    name="equilibrium",
    help="Draw where margins settle, on points whose true boundary is known.\n\n"
    "Trains the methods of the config `equilibrium`; the same command continues.",
)
app.command(
    "ima.cli.report:report",
    name="report",
    help="Write a page about evaluated networks, to send on.\n\n"
    "It has accuracies, curves, samples with noise, margins and checks; for segmentation Dice, "
    "curves and slices with the predictions on them.",
)
app.command(
    "ima.cli.tune:tune",
    name="tune",
    help="Try values of options, and say which do best on validation.\n\n"
    "The default method has nothing to tune; this is for others. A study of Optuna in a folder: "
    "trials that are worse than others end early, and the same command, in several processes too, "
    "continues it.",
)
app.command(
    "ima.cli.runs:runs", name="runs", help="List runs: how far they are, how large; delete them."
)
configs = App(name="config", help="Print whole configs, and every key that a config may have.")
configs.command("ima.cli.config:show", name="show", help="Print a whole config, to begin your own.")
configs.command("ima.cli.config:keys", name="keys", help="List all keys, and what they mean.")
app.command(configs)
app.command("ima.cli.tables:show_table", name="list", help="List methods, attacks, data, ...")
data = App(name="data", help="Fetch, cut and pack public data sets.")
data.command("ima.cli.data:get", name="get", help="Fetch a public data set and check it.")
data.command(
    "ima.cli.data:subset",
    name="subset",
    help="Cut the small part for the small experiments.\n\n"
    "It goes where they look for it: the folder IMA_DATA, or else ./data.",
)
data.command(
    "ima.cli.data:pack",
    name="pack",
    help="Pack the CT images into one small file.\n\n"
    "Validation and test images of split 0 stay as they are; training images become JPEG.",
)
data.command("ima.cli.data:msd", name="msd", help="Prepare Medical Decathlon data for nnU-Net.")
app.command(data)
nnunet = App(name="nnunet", help="Use nnU-Net with our trainers: plan, train, predict, compare.")
nnunet.command(
    "ima.cli.nnunet:path",
    name="path",
    help="Print the folder for nnUNet_extTrainer, where nnU-Net finds our trainers.\n\n"
    "For nnU-Net's own commands: `export nnUNet_extTrainer=$(ima nnunet path)`, then "
    "`nnUNetv2_train 4 2d 0 -tr nnUNetTrainerIMA`.",
)
nnunet.command("ima.cli.nnunet:plan", name="plan", help="Plan and preprocess, as nnU-Net does.")
nnunet.command(
    "ima.cli.nnunet:train", name="train", help="Train as nnU-Net does, with our trainers."
)
nnunet.command("ima.cli.nnunet:predict", name="predict", help="Predict as nnU-Net does.")
nnunet.command(
    "ima.cli.nnunet:compare",
    name="compare",
    help="Prepare, plan, train and attack every row of a table.\n\n"
    "After a stop, the same command continues.",
)
app.command(nnunet)

app.register_install_completion_command(
    help="Let the shell complete commands and options; for bash, zsh and fish."
)

STOPPED = 130


def main() -> None:
    """Run the command line; errors that say what to do are printed without a traceback."""
    watch_parent()
    print_anywhere()
    keep_freed()
    try:
        check_words(sys.argv[1:])
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
