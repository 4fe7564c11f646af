"""A private Slurm on the loopback interface, from Debian's packages.

It runs munged, slurmctld and one slurmd per node in a temporary folder, with as little configuration as possible. It
reads no configuration of an installed Slurm.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from command_line import environment, free_port, wait_until

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun")

CONFIGURATION = """\
ClusterName=own
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/builtin
SchedulerParameters=sched_interval=1
SlurmdParameters=config_overrides
ReturnToService=2
MinJobAge=3600
GresTypes=gpu
{nodes}
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
"""``cred_expire`` also sets how long a requeued job waits before it starts again (default 120 s).

``sched_interval`` sets how often Slurm checks whether it may start (default 60 s).
"""

NODE = "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=2 Gres=gpu:1"


def missing() -> str | None:
    """Why Slurm cannot run here; None if it can."""
    if absent := [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]:
        return f"{', '.join(absent)}: not installed (Debian's slurm-wlm and munge)"
    return None if os.geteuid() == 0 else "slurmd runs as root alone"


@dataclass(frozen=True)
class Slurm:
    """A running Slurm, configured in ``folder``."""

    folder: Path

    def command(self, *words: object, cwd: Path | None = None, **changes: str) -> str:
        """Runs one of Slurm's commands and returns its output."""
        return subprocess.run(
            [*map(str, words)], cwd=cwd, env=self.environment(**changes), capture_output=True, text=True, check=True
        ).stdout.strip()

    def environment(self, **changes: str) -> dict[str, str]:
        ours = {name: value for name, value in environment().items() if not name.startswith("SLURM_")}
        return ours | {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": _path()} | changes

    def job(self, number: str) -> dict[str, str]:
        """The properties that ``scontrol`` shows of a job, by name."""
        words = self.command("scontrol", "--oneliner", "show", "job", number).split()
        return dict(word.split("=", 1) for word in words if "=" in word)


@contextlib.contextmanager
def own_slurm(folder: Path, nodes: int = 1) -> Iterator[Slurm]:
    """A Slurm whose nodes have two processors and a pretended GPU. Its jobs and daemons end with it."""
    host = socket.gethostname()
    controller, *ports = _free_ports(nodes + 1)
    names = [f"node{number}" for number in range(1, nodes + 1)]
    lines = [NODE.format(name=name, host=host, port=port) for name, port in zip(names, ports, strict=True)]
    for name in ("state", *names):
        (folder / name).mkdir()
    (folder / "slurm.conf").write_text(
        CONFIGURATION.format(host=host, port=controller, folder=folder, nodes="\n".join(lines))
    )
    (folder / "gres.conf").write_text("Name=gpu File=/dev/zero\n")
    (folder / "cgroup.conf").write_text("")
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    folder.chmod(0o755)  # munged requires it
    slurm = Slurm(folder)
    with contextlib.ExitStack() as stack:

        def start(name: str, *words: str) -> None:
            log = stack.enter_context((folder / f"{name}.log").open("w"))
            process = subprocess.Popen(words, env=slurm.environment(), stdout=log, stderr=log, start_new_session=True)
            stack.callback(_end, process)

        paths = {"key-file": key, "socket": folder / "munge.socket", "pid-file": folder / "munge.pid"}
        paths |= {"seed-file": folder / "munge.seed"}
        start("munged", "munged", "--foreground", "--force", *(f"--{name}={path}" for name, path in paths.items()))
        wait_until((folder / "munge.socket").exists)
        start("slurmctld", "slurmctld", "-D", "-i")
        for name in names:
            start(name, "slurmd", "-D", "-N", name)
        wait_until(lambda: _idle(slurm) == nodes, pause=0.1)
        stack.callback(_cancel, slurm)
        yield slurm


def _cancel(slurm: Slurm) -> None:
    """Ends all jobs while the daemons that can end them still run."""
    slurm.command("scancel", "--signal=KILL", "--full", "--user=root")
    slurm.command("scancel", "--user=root")
    wait_until(lambda: not slurm.command("squeue", "--noheader"), pause=0.1)


def _idle(slurm: Slurm) -> int:
    with contextlib.suppress(subprocess.CalledProcessError):  # the controller does not answer yet
        return slurm.command("sinfo", "--noheader", "--Node", "--format=%t").split().count("idle")
    return 0


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait()


def _free_ports(number: int) -> list[int]:
    ports = set[int]()
    while len(ports) < number:
        ports.add(free_port())
    return list(ports)


def _path() -> str:
    return f"{os.environ['PATH']}:/usr/sbin"
