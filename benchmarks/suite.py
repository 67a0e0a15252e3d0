"""whorl beside its peers: workload after workload, programs in turn (A B A B), one thread, one core, in one run.

python benchmarks/suite.py --repeats 5                    everything; writes results/speed.json and docs/speed.md
python benchmarks/suite.py --only w1 w3_32                these; their rows take the place of the older ones
python benchmarks/suite.py --page                         docs/speed.md again, from the JSON that is there

The peers' own environment, benchmarks/peers/.venv-speed, is made the first time.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from workloads import WORKLOADS

HERE = Path(__file__).parent
ROOT = HERE.parent
ENVIRONMENTS = {
    "parity": (".venv", "requirements.txt"),
    "speed": (".venv-speed", "requirements-speed.txt"),
}  # in peers/
RESULTS, PAGE = ROOT / "results" / "speed.json", ROOT / "docs" / "speed.md"
ONE_THREAD = {
    "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false", "PYTHONPATH": str(ROOT / "src"), "PYTHONWARNINGS": "ignore",
}  # fmt: skip
VERSIONS = "import json, report; print(json.dumps(report.machine()))"


def install(name):
    """The interpreter of an environment of peers, which is made once; again when its list changed or making it did not finish."""
    folder, wanted = (HERE / "peers" / each for each in ENVIRONMENTS[name])
    python, installed = folder / "bin" / "python", folder / "installed.txt"
    if not installed.exists() or installed.read_text() != wanted.read_text():
        print(f"installing the peers into {folder} ...", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", "-r", str(wanted)], check=True)
        installed.write_text(wanted.read_text())
    return python


def start(interpreter, program, *words, **how):
    """A process on one core, with one thread."""
    pin = ["taskset", "-c", str(min(os.sched_getaffinity(0)))] if shutil.which("taskset") else []
    environment = {**os.environ, **ONE_THREAD, **program.env}
    return subprocess.Popen(
        [*pin, interpreter, program.file, *words], cwd=HERE / "peers", env=environment, text=True,
        stdout=subprocess.PIPE, stderr=how.pop("stderr"), **how,
    )  # fmt: skip


class Programs:
    """Programs that are asked again and again. Each stays, and waits at its input while another has the core."""

    def __init__(self, interpreters):
        self.interpreters, self._alive = interpreters, {}
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  (it ends with this object)

    def ask(self, name, program, seconds, seed):
        """What it answers. Raises ChildProcessError with the last line of its error."""
        if program.words is not None:
            return self._whole(program, seed)
        key = (name, program.file)
        if key not in self._alive:
            self._alive[key] = start(
                self.interpreters[program.whose], program, stdin=subprocess.PIPE, stderr=self._errors, bufsize=1
            )
        process = self._alive[key]
        try:
            process.stdin.write(json.dumps({**program.options, "seconds": seconds, "seed": seed}) + "\n")
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            del self._alive[key]
            process.wait()
            raise ChildProcessError(self._last_error())
        return json.loads(line)

    def _whole(self, program, seed):
        """Seconds from its start to its end, or to the time that it prints, and its memory."""
        words = [word.replace("SEED", str(seed)) for word in program.words]
        began = time.time()
        process = start(self.interpreters[program.whose], program, *words, stderr=self._errors)
        output = process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        end = time.time()
        if status:
            raise ChildProcessError(self._last_error())
        at = [json.loads(line)["at"] for line in output.splitlines() if line.startswith("{")]
        wall = (at[-1] if at else end) - began
        share = (used.ru_utime + used.ru_stime) / (end - began)
        return {"value": wall, "mib": used.ru_maxrss / 1024, "share": share, "final_return": None}

    def _last_error(self):
        self._errors.seek(0)
        return (self._errors.read().strip().splitlines() or ["no message"])[-1]

    def close(self):
        for process in self._alive.values():
            process.stdin.close()
            process.wait()


def measured(workload, programs, repeats, seconds):
    """{runs, failed}: what every program answered, in turn."""
    runs, failed = {}, {}
    for repeat in range(repeats):
        for name, program in workload.programs.items():
            try:
                found = programs.ask(name, program, seconds, repeat)
            except ChildProcessError as error:
                failed[name] = str(error)
                print(f"  {name}: {error}", flush=True)
                continue
            runs.setdefault(name, []).append(found)
            print(f"  {name}: {found['value']:,.2f} {workload.unit} (had the core {found['share']:.0%})", flush=True)
    return {"runs": runs, "failed": failed}


def judged(workload, found):
    """What was measured, with medians, and the goals beside what was reached."""
    runs, more = found["runs"], workload.unit != "s"
    median = {name: statistics.median(run["value"] for run in own) for name, own in runs.items() if own}
    goals = []
    for goal in workload.goals:
        if runs.get(goal.ours) and runs.get(goal.theirs):
            ours, theirs = (statistics.median(run[goal.of] for run in runs[name]) for name in (goal.ours, goal.theirs))
            reached = ours / theirs
            met = reached >= goal.ratio if more else reached <= goal.ratio
            goals.append({**goal._asdict(), "reached": reached, "met": met})
        else:
            goals.append({**goal._asdict(), "reached": None, "met": False})
    return {"title": workload.title, "unit": workload.unit, "median": median, "goals": goals, **found}


def number(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def aim(goal, more):
    """A goal beside what was reached, as a cell of the table."""
    reached = "not measured" if goal["reached"] is None else f"{goal['reached']:.2f}x"
    what = {"value": "", "mib": " of its memory"}[goal["of"]]
    return f"{goal['ours']} {'>=' if more else '<='} {goal['ratio']:g}x{what}: {reached}, {'met' if goal['met'] else 'missed'}"


def page(data):
    """docs/speed.md of results/speed.json."""
    lines = [
        "# How fast whorl is beside its peers", "",
        "<!-- written by benchmarks/suite.py from results/speed.json -->", "",
        "One thread on one core; the programs of a row take turns in one run; medians. *whorl is* is the first row of the same work over",
        "this one. A program that had the core for less than its whole time (*core*) was disturbed. What each program does, and how it is",
        "timed: [benchmarks](../benchmarks/README.md).", "",
        "| work | program | median | min to max | runs | core | whorl is | goal |", "|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for work in data["workloads"].values():
        first = next(iter(work["median"].values()), None)
        for name, runs in work["runs"].items():
            values = [run["value"] for run in runs]
            body = {run.get("update", "") for run in runs if name.endswith(" auto")} - {""}
            goals = "; ".join(aim(goal, work["unit"] != "s") for goal in work["goals"] if goal["theirs"] == name)
            memory = f", {statistics.median(run['mib'] for run in runs):,.0f} MiB" if "mib" in runs[0] else ""
            core = statistics.median(run["share"] for run in runs)
            cells = [
                work["title"], f"{name} ({', '.join(sorted(body))})" if body else name,
                f"{number(work['median'][name])} {work['unit']}{memory}", f"{number(min(values))} to {number(max(values))}",
                str(len(values)), f"{core:.0%}", f"{first / work['median'][name]:.2f}x", goals,
            ]  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
        lines += [
            f"| {work['title']} | {name} | failed: {error} |  |  |  |  |  |" for name, error in work["failed"].items()
        ]
    met = [goal["met"] for work in data["workloads"].values() for goal in work["goals"]]
    lines += [
        "",
        f"{sum(met)} of {len(met)} goals are met. Works were measured by these commands, maybe on several machines: "
        "ratios are within one run.",
        "",
    ]
    commands: dict[str, list[str]] = {}
    for name, work in data["workloads"].items():
        commands.setdefault(work["command"].strip(), []).append(name)
    lines += [f"- `{command}`: {', '.join(names)}" for command, names in commands.items()]
    lines += ["", f"The newest: {data['machine']['whorl']['platform']}.", ""]
    for whose, each in data["machine"].items():
        versions = ", ".join(f"{name} {version}" for name, version in each["versions"].items())
        lines.append(f"- {whose}: Python {each['python']}, {versions}")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of measuring, for each program each time")
    parser.add_argument("--only", nargs="+", choices=list(WORKLOADS), default=list(WORKLOADS))
    parser.add_argument("--peers-python", type=Path, help="an interpreter that has the peers")
    parser.add_argument("--install", choices=list(ENVIRONMENTS), help="measure nothing, make this environment of peers")
    parser.add_argument("--page", action="store_true", help="measure nothing, write docs/speed.md from --out")
    parser.add_argument("--out", type=Path, default=RESULTS, help="another file: docs/speed.md stays as it is")
    o = parser.parse_args()
    if o.page:
        PAGE.write_text(page(json.loads(o.out.read_text())))
        return
    if o.install:
        install(o.install)
        return
    interpreters = {"whorl": sys.executable, "peers": str((o.peers_python or install("speed")).absolute())}
    began, machine = time.monotonic(), {}
    for whose, interpreter in interpreters.items():
        done = subprocess.run(
            [interpreter, "-c", VERSIONS], capture_output=True, text=True, cwd=HERE / "peers", check=True
        )
        machine[whose] = json.loads(done.stdout.splitlines()[-1])
    old = json.loads(o.out.read_text()).get("workloads", {}) if o.out.exists() else {}
    command = "python benchmarks/suite.py " + " ".join(sys.argv[1:])
    programs, new = Programs(interpreters), {}
    try:
        for name in o.only:
            workload, load = WORKLOADS[name], os.getloadavg()[0]
            print(f"{name}: {workload.title}", flush=True)
            found = judged(workload, measured(workload, programs, o.repeats, o.seconds))
            new[name] = {**found, "load_before": load, "command": command}
            for goal in found["goals"]:
                print(f"  goal for {goal['theirs']}: {aim(goal, workload.unit != 's')}", flush=True)
    finally:
        programs.close()
    rows = {name: {**old, **new}[name] for name in WORKLOADS if name in old or name in new}
    data = {"command": command.strip(), "machine": machine, "workloads": rows}
    o.out.parent.mkdir(exist_ok=True)
    o.out.write_text(json.dumps(data, indent=1) + "\n")
    if o.out == RESULTS:
        PAGE.write_text(page(data))
    print(f"{o.out}, after {time.monotonic() - began:.0f} s")
    sys.exit(1 if any(row["failed"] for row in new.values()) else 0)


if __name__ == "__main__":
    main()
