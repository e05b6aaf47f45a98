"""What `paceline doctor` says about several machines, from what across.py finds on them."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import statistics
import sys
from typing import Any

from .check import Check, last_line, run_command
from .hosts import Host, is_here

_FOUND = '{"machines":'
_WAIT_SECONDS = 20  # for a rank, then the report of `paceline run` says which one
_CLOCK_SECONDS = 1.0  # by which files of one machine seem to come from the future on another
_SLOW = 0.5  # of the others' bandwidth
_MEND = "mend what is broken above"


def examine_machines(hosts: list[Host]) -> list[Check]:
    """A job on these machines, as training would be one; where there is none, who cannot be reached."""
    listed = ",".join(f"{host.name}:{host.slots}" for host in hosts)
    command = [sys.executable, "-m", "paceline", "run", "--hosts", listed, "--timeout", str(_WAIT_SECONDS)]
    code, output = run_command([*command, "-m", "paceline.launch.across", os.getcwd()], {})
    found = next((line for line in output.splitlines() if line.startswith(_FOUND)), None)
    if code == 0 and found is not None:
        return report(json.loads(found))
    said = next((line for line in output.splitlines() if line.startswith("paceline run: ")), last_line(output))
    by_ssh = shutil.which("ssh") is not None and "SLURM_JOB_ID" not in os.environ
    checks = [reach(host) for host in hosts if by_ssh and not is_here([host])]
    advice = _MEND if _any_broken(checks) else f"look at: paceline run --hosts {listed} -m paceline.launch.across ."
    return [*checks, Check("All ranks", "broken", said.removeprefix("paceline run: "), advice)]


def _any_broken(checks: list[Check]) -> bool:
    return any(check.state == "broken" for check in checks)


def reach(host: Host) -> Check:
    """Whether a machine can be logged in to, and has this interpreter with Paceline, at the same path."""
    inside = f"cd {shlex.quote(os.getcwd())} && {shlex.quote(sys.executable)} -m paceline --version"
    code, output = run_command(["ssh", "-oBatchMode=yes", "-oConnectTimeout=5", host.name, inside], {})
    if code == 0:
        return Check(host.name, "ok", "ssh leads there, to the same interpreter with Paceline")
    problem = last_line(output) or f"ssh ended with code {code}"
    return Check(host.name, "broken", problem, f"this has to work: ssh {host.name} {shlex.quote(inside)}")


def report(found: dict[str, Any]) -> list[Check]:
    """A line for each machine, one for the links between them, one for all ranks together."""
    machines, together = found["machines"], found["together"]
    ranks = sum(each["ranks"] for each in machines)
    large, small = f"{together['large'] * 1e3:.2f}", f"{together['small'] * 1e6:.0f}"
    where = f"{ranks} ranks on {len(machines)} machines"
    checks = [_machine(each, machines[0]) for each in machines]
    everybody = ("broken", _MEND) if _any_broken(checks) else ("ok", "")
    if found["links"]:
        checks.append(_network(found["links"], [each["name"] for each in machines]))
    detail = f"{where}: all_reduce of 4 MiB in {large} ms, of one number in {small} us"
    return [*checks, Check("All ranks", everybody[0], detail, everybody[1])]


def _machine(own: dict[str, Any], first: dict[str, Any]) -> Check:
    name, offset = own["name"], own["clock"]
    about = f"{own['ranks']} ranks on {own['cores']} cores"
    differing = [
        f"{what} {version}, on {first['name']} {first['software'][what]}"
        for what, version in own["software"].items()
        if version != first["software"][what]
    ]
    if differing:
        return Check(name, "broken", f"{about}; {'; '.join(differing)}", "install the same on all machines")
    if not own["directory"]:
        advice = "scripts and data have to be at the same path on all machines: use a network file system, or copy them"
        return Check(name, "broken", f"{about}; there is no {os.getcwd()}", advice)
    if own is first:
        about += "; " + ", ".join(f"{what} {version}" for what, version in own["software"].items())
    else:
        about += f"; the same software; clock {_away(offset)} that of {first['name']}"
    if not own["launcher"]:
        advice = "let it open TCP connections to this machine; without, faults there are told in less detail"
        return Check(name, "missing", f"{about}; it cannot connect to `paceline run` here", advice)
    return Check(name, "ok", about, "set its clock (NTP, chrony)" if abs(offset) > _CLOCK_SECONDS else "")


def _away(seconds: float) -> str:
    if abs(seconds) < 1e-3:
        return "within 1 ms of"
    size = f"{abs(seconds):.1f} s" if abs(seconds) >= 1 else f"{abs(seconds) * 1e3:.0f} ms"
    return f"{size} {'ahead of' if seconds > 0 else 'behind'}"


def _network(links: list[dict[str, Any]], names: list[str]) -> Check:
    slowest = min(links, key=lambda link: link["bandwidth"])
    pair = " - ".join(names[i] for i in slowest["machines"])
    latencies = _range([link["latency"] * 1e6 for link in links], "us", 0)
    bandwidths = _range([link["bandwidth"] / 1e9 for link in links], "GB/s", 2)
    detail = f"one message takes {latencies}, {bandwidths}"
    usual = statistics.median(link["bandwidth"] for link in links)
    advice = f"{pair} is slow beside the others: look at its cable, and which network it takes"
    return Check("Network", "ok", detail, advice if slowest["bandwidth"] < _SLOW * usual else "")


def _range(values: list[float], unit: str, digits: int) -> str:
    ends = dict.fromkeys(f"{value:.{digits}f}" for value in (min(values), max(values)))
    return f"{' to '.join(ends)} {unit}"
