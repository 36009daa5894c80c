"""A job over two hosts: network namespaces with their own addresses, joined by one cable, each with a torchrun."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from commands import ENVIRONMENT, differences, serving, wait_for, write_pictures
from tiny import images

TRAINING = ["--network", "resnet20", "--size", 16, "--recipe", "small", "--epochs", 3, "--batch", 16, "--lr", 0.02]
TRAINING += ["--threads", 1, "--save-every", 0.1]


ENTER = 'mount --bind "$1" /etc/hosts && hostname "$2" && shift 2 && exec "$@"'


@dataclass(frozen=True)
class Host:
    """A network namespace, its end of the cable and its address."""

    name: str
    cable: str
    address: str

    def start(self, argv: list[object], names: Path, output: Path) -> subprocess.Popen:
        """A process on this host, which knows its own name and the addresses in the file `names`."""
        words = ["ip", "netns", "exec", self.name, "unshare", "--uts", "sh", "-c", ENTER, "sh", names, self.name, *argv]
        environment = ENVIRONMENT | {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
        with output.open("w") as file:
            return subprocess.Popen([*map(str, words)], stdout=file, stderr=file, env=environment)


def ip(words: str) -> None:
    done = subprocess.run(["ip", *words.split()], capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"ip {words}: {done.stderr.strip()}")


@pytest.fixture
def hosts(tmp_path) -> Iterator[list[Host]]:
    """Two hosts that reach each other and nobody else; skips LOUDLY where that is not permitted."""
    if shutil.which("ip") is None:
        pytest.skip("TWO HOSTS NOT TESTED: there is no `ip` command (iproute2)")
    number = os.getpid()
    pair = [Host(f"host{i}-{number}", f"cable{i}", f"10.77.0.{i}") for i in (1, 2)]
    try:
        for host in pair:
            ip(f"netns add {host.name}")
        first, second = pair
        ip(f"link add {first.cable} netns {first.name} type veth peer name {second.cable} netns {second.name}")
        for host in pair:
            ip(f"-n {host.name} addr add {host.address}/24 dev {host.cable}")
            ip(f"-n {host.name} link set {host.cable} up")
            ip(f"-n {host.name} link set lo up")
        for host in pair:
            if host.start(["true"], names_of(pair, tmp_path), tmp_path / "entering").wait():
                raise OSError((tmp_path / "entering").read_text())
        yield pair
    except OSError as error:
        pytest.skip(f"TWO HOSTS NOT TESTED: network namespaces are not permitted here: {error}")
    finally:
        for host in pair:
            subprocess.run(["ip", "netns", "del", host.name], capture_output=True)


@pytest.fixture
def data(tmp_path) -> Path:
    return write_pictures(tmp_path / "pictures", images(60, 0, side=16))


@pytest.fixture
def one_host(tmp_path, data) -> Path:
    """The run of a job of two processes on one machine."""
    out, output = tmp_path / "one_host", tmp_path / "output"
    with serving() as server:
        argv = ["train", "--data", data, "--out", out, *TRAINING, "--processes", 2]
        assert server.run(argv, output) == 0, output.read_text()
    return out


def torchrun(host: Host, hosts: list[Host], folder: Path) -> subprocess.Popen:
    """What one types on each host."""
    tools = Path(sys.executable).parent
    launch = f"--nnodes 2 --nproc-per-node 1 --rdzv-backend c10d --rdzv-endpoint {hosts[0].name}:29500 --max-restarts 3"
    training = ["train", "--data", folder / "pictures", "--out", folder / "run", *TRAINING]
    argv = [tools / "torchrun", *launch.split(), "--no-python", tools / "convatlas", *training]
    return host.start(argv, names_of(hosts, folder), folder / host.name)


def names_of(hosts: list[Host], folder: Path) -> Path:
    """The file that leads from names to addresses."""
    names = folder / "hosts"
    names.write_text("127.0.0.1 localhost\n" + "".join(f"{host.address} {host.name}\n" for host in hosts))
    return names


def finished(jobs: list[subprocess.Popen], hosts: list[Host], folder: Path) -> str:
    """Wait for both; what they printed."""
    try:
        codes = [job.wait(120) for job in jobs]
    finally:
        for job in jobs:
            job.kill()
            job.wait()
    printed = "\n".join((folder / host.name).read_text() for host in hosts)
    assert codes == [0, 0], printed
    return printed


def test_two_hosts_train_one_network(tmp_path, hosts, data):
    printed = finished([torchrun(host, hosts, tmp_path) for host in hosts], hosts, tmp_path)
    assert "batches of 16 (2 processes x 8)" in printed
    assert printed.count("test accuracy") == 1
    assert json.loads((tmp_path / "run/result.json").read_text())["epochs"] == 3


@pytest.mark.slow
def test_two_hosts_end_like_one_even_when_a_process_is_killed(tmp_path, hosts, data, one_host):
    jobs = [torchrun(host, hosts, tmp_path) for host in hosts]
    wait_for(tmp_path / "run/log.csv")
    [rank] = Path(f"/proc/{jobs[1].pid}/task/{jobs[1].pid}/children").read_text().split()
    os.kill(int(rank), signal.SIGKILL)
    assert "going on at step" in finished(jobs, hosts, tmp_path)
    assert differences(tmp_path / "run", one_host) == []
