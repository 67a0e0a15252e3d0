"""torch-twrl's command line: its options, their defaults, what they may be, and reading them. What they do here: `twrl_run.py`,
docs/twrl.md.

Imports nothing heavy, so that `whorl run --help` answers at once.
"""

from __future__ import annotations

import argparse
import difflib
import math
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NoReturn

from whorl import options
from whorl.errors import BadInput
from whorl.options import Amount, Bounds, Count, Positive, Share
from whorl.training.settings import Settings

SERVER = "http://127.0.0.1:5000"  # torch-twrl's default address of the gym HTTP server


@dataclass(frozen=True)
class Option:
    """One option of the command line. `needs`: words of which each must be chosen (`a|b`: one of them) for it to have an effect."""

    name: str
    default: Any
    help: str
    kind: str = "word"  # word, whole, number, flag, video
    choices: tuple[str, ...] = ()
    bounds: Bounds = Bounds()
    needs: tuple[str, ...] = ()
    short: str = ""  # torch-twrl's letter
    ours: bool = False  # torch-twrl did not have it
    setting: str = ""  # the field of whorl's settings that it is, whose bounds hold


_BOUNDS = {field.name: field.bounds or Bounds() for field in options.fields(Settings)}


def _setting(setting: str, name: str, default: int, help: str, kind: str = "whole", **rest: Any) -> Option:
    return Option(name, default, help, kind, bounds=_BOUNDS[setting], setting=setting, **rest)


def _whole(name: str, default: int, help: str, **rest: Any) -> Option:
    return Option(name, default, help, "whole", bounds=Count, **rest)


def _number(name: str, default: float, help: str, bounds: Bounds = Amount, **rest: Any) -> Option:
    return Option(name, default, help, "number", bounds=bounds, **rest)


def _flag(name: str, help: str, **rest: Any) -> Option:
    return Option(name, False, help, "flag", **rest)


_PG, _TD, _EITHER = ("reinforce",), ("tdLambda",), ("reinforce|tdLambda",)
_TILES, _EPSILON = ("tdLambda", "qFunction"), ("tdLambda", "egreedy")

GROUPS: dict[str, list[Option]] = {
    "experiment": [
        Option("env", "CartPole-v0", "environment: a native world or any installed Gymnasium id", short="e"),
        _setting("max_episode_steps", "nSteps", 1000, "most steps of an episode; a shorter time limit of the environment stays", short="s"),
        _setting("total_episodes", "nIterations", 1000, "episodes, and the horizon of reinforce's linear step-size decay", short="i"),
        _setting("video_every", "video", 100, "a video of the current policy every N episodes; 0 or false: none", "video", short="v"),
        _flag("renderAllSteps", "reported: no window is opened, -video and `whorl play` draw", short="r"),
        _flag("force", "reported: nothing is ever overwritten, every run has a folder of its own", short="f"),
        _flag("resume", "go on with the newest unfinished run of this experimentLogName", short="u"),
        _flag("uploadResults", "end with an entry, curve and GIF in the leaderboard's folder -board; nothing is sent", short="d"),
        _setting("window", "windowSize", 10, "episodes of the sliding summary, which is printed this often"),
        _flag("verboseUpdate", "print episode, learning rate, episodes and steps of each update", needs=_PG),
        Option("gymHttpServer", SERVER, "its default means this process; another URL: environments of that gym HTTP server"),
        Option("experimentLogName", "experiment", "first part of the run's folder name"),
        _setting("seed", "seed", 0, "of every random stream", ours=True),
        Option("runs", "runs", "folder of all runs", ours=True),
        Option("board", "board", "folder of the leaderboard, for -uploadResults", ours=True),
        _flag("json", "last line: JSON {run, episodes, best_mean_100, last_mean_100}", ours=True),
    ],
    "agent": [
        Option("model", "mlp", "maps observations to actions or values; whorl's own: table, linear", short="m",
               choices=("noModel", "mlp", "qFunction", "table", "linear")),
        Option("policy", "categorical", "chooses actions; whorl's own: softmax",
               choices=("random", "categorical", "normal", "egreedy", "softmax")),
        Option("learningUpdate", "reinforce", "changes the model", short="l",
               choices=("noLearning", "reinforce", "tdLambda")),
        Option("learningType", "batch", "reinforce learns in batches, tdLambda at each step (its default is noBatch)",
               choices=("batch", "noBatch"), needs=_EITHER),
        _number("stepsizeStart", 0.3, "step size; reinforce lowers it linearly to 0", short="z", needs=_EITHER),
        _number("gamma", 1.0, "discount", bounds=Share, needs=_EITHER),
    ],
    "reinforce": [
        _whole("timestepsPerBatch", 1000, "a batch closes at the first end of an episode with this many steps", needs=_PG),
        _number("policyStd", 0.1, "standard deviation of the normal policy, in half action ranges", bounds=Positive,
                short="o", needs=("reinforce", "normal")),
        _whole("nHiddenLayerSize", 10, "units of the hidden layer", needs=_PG),  # its letter was h, which asks for help
        _number("gradClip", 5.0, "largest element of the gradient; 0 or less: no limit", bounds=Bounds(), needs=_PG),
        Option("baselineType", "padTimeDepAvReturn", "taken from the return; whorl's own: mean, timeDepAvReturn, "
               "optimal, leaveOneOut, value", short="b", needs=_PG,
               choices=("zeroBaseline", "padTimeDepAvReturn", "mean", "timeDepAvReturn", "optimal", "leaveOneOut", "value")),
        _number("weightDecay", 0.0, "L2 weight decay", short="w", needs=_PG),
        Option("optimType", "rmsprop", "name of an optimizer of torch.optim, in lower case", needs=_PG),
        _number("optimAlpha", 0.9, "smoothing of rmsprop", bounds=Share, needs=("reinforce", "rmsprop")),
        _number("beta", 0.01, "weight of the entropy; positive raises it", bounds=Bounds(), short="a",
                needs=("reinforce", "categorical")),
    ],
    "tdLambda": [
        Option("tdLearnUpdate", "qLearning", "target; whorl's own: expectedSARSA", needs=_TD,
               choices=("qLearning", "SARSA", "expectedSARSA")),
        Option("traceType", "replacing", "whorl's own: dutch (true online)", needs=_TD,
               choices=("replacing", "accumulating", "dutch")),
        _number("lambda", 0.9, "trace decay", bounds=Share, needs=_TD),
        _number("relativeAlpha", 0.0, "not 0: the step size is relativeAlpha / numTilings", needs=_TILES),
        _number("epsilon", 0.1, "share of random actions", bounds=Share, needs=_EPSILON),
        _number("epsilonDecayRate", 0.999, "factor of epsilon after each action", bounds=Share, needs=_EPSILON),
        _number("epsilonMinValue", 0.0001, "epsilon stops there", bounds=Share, needs=_EPSILON),
        _number("temperature", 1.0, "of the softmax policy", bounds=Positive, ours=True, needs=("tdLambda", "softmax")),
        _whole("numTiles", 32, "each tiling is hashed into numTiles^2 slots", needs=_TILES),
        _whole("numTilings", 4, "tilings, and tiles per dimension of each", needs=_TILES),
        _number("initialWeightVal", -0.01, "initial weights of the action values", bounds=Bounds(), needs=_TD),
    ],
}  # fmt: skip
OPTIONS = {option.name: option for options in GROUPS.values() for option in options}

RENAMED = {"alphaScaleFactor": "relativeAlpha"}  # testScript.lua's name -> run.lua's
GONE = {  # testScript.lua's name -> (default, why it cannot be anything else)
    "showTrajectory": ("false", "no window is opened: -video N and `whorl play` draw"),
    "actorLearningRate": ("0.001", "it belonged to a DDPG that torch-twrl never had"),
    "criticLearningRate": ("0.0001", "it belonged to a DDPG that torch-twrl never had"),
    "tau": ("0.001", "it belonged to a DDPG that torch-twrl never had"),
    "bufferSize": ("10000", "it belonged to a DDPG that torch-twrl never had"),
}
LETTERS = {option.short: option.name for option in OPTIONS.values() if option.short}
TWICE = {"p": ("policy", "timestepsPerBatch"), "g": ("gamma", "gradClip")}  # torch-twrl gave these letters twice


@dataclass
class Choice:
    """What a command line asks for. `given`: the options that stood on it, in order."""

    values: dict[str, Any]
    given: list[str] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["values"][name]
        except KeyError:
            raise AttributeError(name) from None

    @property
    def words(self) -> set[str]:
        """The chosen names, which decide what other options do."""
        return {self.model, self.policy, self.learningUpdate, self.optimType}

    def unused(self) -> list[str]:
        """Options on the command line without an effect for this triple."""
        words, found = self.words, []
        for name in dict.fromkeys(self.given):
            option = OPTIONS.get(name)
            idle = option is None or not all(words & set(need.split("|")) for need in option.needs)
            replaced = name == "stepsizeStart" and {"tdLambda", "qFunction"} <= words and self.relativeAlpha != 0
            if idle or replaced:
                found.append(name)
        return found


def read(arguments: Iterable[str]) -> Choice:
    """The options of a command line. Raises BadInput, naming the option, what it takes and what came."""
    words = _normal(arguments)
    parsed = vars(_parser().parse_args(words))
    given = list(parsed)
    renamed = {RENAMED.get(name, name): value for name, value in parsed.items()}
    if len(renamed) < len(parsed):
        both = next(f"-{old} and -{new}" for old, new in RENAMED.items() if old in parsed and new in parsed)
        raise BadInput(f"{both} are two names of one option: give one of them")
    for name in GONE.keys() & renamed.keys():
        del renamed[name]
    values = {name: option.default for name, option in OPTIONS.items()} | renamed
    server = values["gymHttpServer"].rstrip("/")
    if not server.startswith(("http://", "https://")):
        raise BadInput(
            f"-gymHttpServer takes the URL of a gym HTTP server, such as http://127.0.0.1:5001, got {server}"
        )
    if server != SERVER:
        values["env"] = f"{server}/{values['env']}"
    return Choice(values, [RENAMED.get(name, name) for name in given])


# ---------------------------------------------------------------------------------------------- reading words


def _normal(arguments: Iterable[str]) -> list[str]:
    """Every option as `-name` or `-name=number`: one or two dashes, torch-twrl's letters, and the word " -name" that a shell makes
    of ` \\ -name` in the middle of a line."""
    words: list[str] = []
    for raw in arguments:
        word = raw.strip()
        if raw and not word:
            continue
        if not word.startswith("-") or not word.strip("-"):
            words.append(raw)
        elif is_number(word):  # argparse takes -1e-3 for an option
            option = words and words[-1].startswith("-") and "=" not in words[-1]
            words.append(f"{words.pop()}={word}" if option else word)
        else:
            name, equals, value = word.removeprefix("-").removeprefix("-").partition("=")
            words.append(f"-{_full(name)}{equals}{value}")
    return words


def _full(name: str) -> str:
    """The long name, checked. `h` asks for help here."""
    if name in ("h", "help"):
        return "help"
    if name in TWICE:
        raise BadInput(f"-{name} stood for {' and '.join(TWICE[name])} in torch-twrl: write the long name")
    known = [*OPTIONS, *RENAMED, *GONE]
    full = LETTERS.get(name, name)
    if full not in known:
        near = difflib.get_close_matches(name, known, n=3) or [n for n in known if n.lower() == name.lower()]
        hint = f"; did you mean {' or '.join('-' + n for n in near)}?" if near else "; `whorl run -help` lists all"
        raise BadInput(f"unknown option -{name}{hint}")
    return full


def is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise BadInput(message.removeprefix("argument ").replace("arguments: ", "words: "))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="whorl run",
        add_help=False,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="whorl run -env ENV -policy POLICY -learningUpdate UPDATE -model MODEL [-OPTION VALUE ...]",
        description="torch-twrl's command line: an agent is a model, a policy and a learning update.\n"
        "One dash or two. The last of two equal options wins. docs/twrl.md tells what differs from torch-twrl.",
        epilog="example: whorl run -env CartPole-v0 -policy categorical -learningUpdate reinforce -model mlp -stepsizeStart 0.05",
    )
    for title, group_options in GROUPS.items():
        group = parser.add_argument_group(title)
        for o in group_options:
            about = f"{o.help}{' [whorl]' if o.ours else ''} (default {text(o.default)})"
            choices = f"{{{','.join(o.choices)}}}" if o.choices else o.kind.upper()
            metavar = {"flag": "true|false", "video": "N|false"}.get(o.kind, choices)
            group.add_argument(f"-{o.name}", dest=o.name, type=_reader(o), metavar=metavar,
                               help=about.replace("%", "%%"))  # fmt: skip
    for old, new in RENAMED.items():
        parser.add_argument(f"-{old}", dest=old, type=_reader(OPTIONS[new]), help=argparse.SUPPRESS)
    for name, (default, why) in GONE.items():
        parser.add_argument(f"-{name}", dest=name, type=_only(default, why), help=argparse.SUPPRESS)
    parser.add_argument("-h", "-help", action=_Help, nargs=0, help="this text (torch-twrl's -h was nHiddenLayerSize)")
    return parser


class _Help(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        parser.print_help(sys.stdout)
        raise SystemExit(0)


def text(value: Any) -> str:
    """A value as it is written on the command line."""
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def _reader(o: Option) -> Callable[[str], Any]:
    """The function that makes a value from a word, for argparse."""

    def read_word(word: str) -> Any:
        if o.kind == "flag" or (o.kind == "video" and word in ("true", "false")):
            if word == "false" or (word == "true" and o.kind == "flag"):
                return word == "true" if o.kind == "flag" else 0
            wanted = "a number of episodes or false" if o.kind == "video" else "true or false"
            raise argparse.ArgumentTypeError(f"takes {wanted}, got {word!r}")
        if o.kind == "word":
            if o.choices and word not in o.choices:
                raise argparse.ArgumentTypeError(f"takes one of {', '.join(o.choices)}; got {word!r}")
            return word
        return _numeral(o, word)

    return read_word


def _numeral(o: Option, word: str) -> float | int:
    kind = "a number" if o.kind == "number" else "a whole number"
    span = "" if o.bounds == Bounds() else f" of {o.bounds}" if o.bounds.high == math.inf else f" {o.bounds}"
    try:
        value = float(word)
        fine = math.isfinite(value) and o.bounds.holds(value) and (o.kind == "number" or value == int(value))
    except ValueError:
        fine = False
    if not fine:
        also = " or false" if o.kind == "video" else ""
        raise argparse.ArgumentTypeError(f"takes {kind}{span}{also}, got {word!r}")
    return value if o.kind == "number" else int(value)


def _only(default: str, why: str) -> Callable[[str], str]:
    """The reader of an option of testScript.lua that has no meaning any more: its default is let through."""

    def read_word(word: str) -> str:
        same = is_number(word) and is_number(default) and float(word) == float(default)
        if word != default and not same:
            raise argparse.ArgumentTypeError(f"is not available ({why}), got {word!r}")
        return default

    return read_word
