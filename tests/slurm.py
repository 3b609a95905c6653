"""A real Slurm on this machine, in a folder that is deleted: munged, slurmctld and slurmd.

As `slurm-wlm` and `munge` of Debian install them; started by root, on loopback, beside none else.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "sinfo")

CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
AuthType=auth/munge
# A job that is requeued begins again only when its old credential has ended.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SwitchType=switch/none
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0
SlurmdParameters=config_overrides
KillWait=2
MinJobAge=5
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def absent() -> str:
    """Why there can be no Slurm here; empty where there can."""
    paths = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    missing = [name for name in PROGRAMS if shutil.which(name, path=paths) is None]
    if missing:
        return f"no Slurm here ({', '.join(missing)}): apt-get install slurm-wlm munge"
    return "" if os.geteuid() == 0 else "Slurm's programs are started by root alone"


def _port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def slurm(folder: Path) -> Generator[dict[str, str]]:
    """Within: a cluster of this machine; gives the variables by which commands find it."""
    host = socket.gethostname().partition(".")[0]
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    folder.chmod(0o755)
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o600)
    config = folder / "slurm.conf"
    ports = {"controller": _port(), "node": _port()}
    config.write_text(CONFIG.format(folder=folder, host=host, **ports))
    paths = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    environ = {"PATH": paths, "SLURM_CONF": str(config)}
    munge = [f"--{name}={folder}/munge.{name.split('-')[0]}" for name in
             ("key-file", "socket", "pid-file", "log-file", "seed-file")]  # fmt: skip
    with ExitStack() as running:
        for command in (
            ["munged", "--foreground", "--force", *munge],
            ["slurmctld", "-D", "-c", "-f", str(config)],
            ["slurmd", "-D", "-N", host, "-f", str(config)],
        ):
            log = running.enter_context((folder / f"{command[0]}.out").open("w"))
            process = subprocess.Popen(
                command, env={**os.environ, **environ}, stdout=log, stderr=log,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip
            running.callback(_end, process)
            if command[0] == "munged":
                _until(lambda: (folder / "munge.socket").exists(), folder)
        _until(lambda: "idle" in ask(["sinfo", "--noheader", "--format=%T"], environ), folder)
        yield environ


def ask(command: list[str], environ: dict[str, str]) -> str:
    """What a command of Slurm prints; empty where it fails."""
    done = subprocess.run(command, env={**os.environ, **environ}, capture_output=True, text=True)
    return done.stdout if done.returncode == 0 else ""


def _until(true: object, folder: Path, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        if time.monotonic() > end:
            logs = [f"{path.name}: {path.read_text()[-600:]}" for path in folder.glob("*.out")]
            raise TimeoutError("Slurm does not start; " + "; ".join(logs))
        time.sleep(0.2)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
