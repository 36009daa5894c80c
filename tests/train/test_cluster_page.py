"""Every command, script and manifest of docs/cluster.md is one that its reader understands."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml
from torch.distributed.run import get_args_parser

from convatlas.cli import build_parser

PAGE = (Path(__file__).parents[2] / "docs/cluster.md").read_text()
SCRIPTS = re.findall(r"```bash\n(.*?)```", PAGE, re.S)
[MANIFEST] = re.findall(r"```yaml\n(.*?)```", PAGE, re.S)
SERVICE, JOB = yaml.safe_load_all(MANIFEST)
[CONTAINER] = JOB["spec"]["template"]["spec"]["containers"]
LINES = [line for script in SCRIPTS for line in script.replace("\\\n", "").splitlines()]
COMMANDS = [
    shlex.split(line.removeprefix("srun ")) for line in LINES if re.match(r"(srun )?(torchrun|convatlas) ", line)
]


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_shell_reads_the_scripts(script):
    assert subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True).stderr == ""


@pytest.mark.parametrize("words", [*COMMANDS, CONTAINER["command"]], ids=lambda words: " ".join(words[:3]))
def test_the_commands_are_understood(words):
    if words[0] == "torchrun":
        torchrun = get_args_parser().parse_args(words[1:])
        assert torchrun.no_python
        assert torchrun.rdzv_backend == "c10d"
        assert torchrun.max_restarts == 3
        words = [torchrun.training_script, *torchrun.training_script_args]
    assert words[0] == "convatlas"
    args = build_parser().parse_args(words[1:])
    assert args.run.__name__ in ("train", "shard")


def test_the_page_has_one_machine_several_slurm_and_kubernetes():
    assert [words[0] for words in COMMANDS] == ["convatlas", "torchrun", "convatlas", "torchrun"]
    assert [document["kind"] for document in (SERVICE, JOB)] == ["Service", "Job"]
    subdomain = JOB["spec"]["template"]["spec"]["subdomain"]
    assert SERVICE["metadata"]["name"] == subdomain
    assert f"{JOB['metadata']['name']}-0.{subdomain}:29500" in CONTAINER["command"]


def test_torchrun_on_several_hosts_is_told_to_restart_with_a_new_store():
    assert "export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1" in SCRIPTS[1]
    assert "export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1" in SCRIPTS[3]
    assert {"name": "TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "value": "1"} in CONTAINER["env"]
