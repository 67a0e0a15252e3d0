"""Every error that whorl raises on purpose. Each says what was expected, what came and what to do."""

import shlex


def command(*words: object) -> str:
    """`whorl ...` for a message that says what to type: it can be pasted, whatever stands in its words."""
    return shlex.join(["whorl", *map(str, words)])


def in_words(error: BaseException) -> str:
    """The kind of somebody else's error and what it says, in one line of at most 300 printable characters."""
    try:
        text = " ".join(str(error).split())[:300]
    except Exception:  # its text is an error, too
        text = ""
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


class WhorlError(Exception):
    """Base of all of them. `exit_code` is what the command line returns."""

    exit_code = 1


class BadInput(WhorlError, ValueError):
    """What was asked for cannot be done: an unknown name, an impossible number, a folder that is not a run."""

    exit_code = 2


class Incompatible(BadInput):
    """This agent cannot work in this environment, or with this feed. The message is the reason."""


class BatchError(WhorlError, ValueError):
    """A batch lacks a key, or a key has the wrong shape or dtype. Says who should have written it."""


class NotFinite(WhorlError, ArithmeticError):
    """NaN or infinity in an observation, a reward, a loss or a gradient. No weight was changed by it."""


class NotReplayed(WhorlError):
    """The episodes of an environment could not be played again; fresh ones begin."""


class EnvError(WhorlError, RuntimeError):
    """An environment breaks its contract (see `check_env`). `row`: which of the N that are stepped together, where that is known.
    `placed`: the message says seed, episode and step."""

    row: int | None = None
    placed: bool = False


class StopTraining(Exception):
    """Raise it in a hook or a logger to end the run cleanly: what was learned is saved, evaluated and returned. No error."""


class Damaged(WhorlError, OSError):
    """A file is not as whorl wrote it: a checkpoint does not agree with its manifest, a field is of the wrong kind, a link leads out."""

    exit_code = 2


class AgentError(WhorlError, RuntimeError):
    """An agent breaks its contract, or does not learn what `check_agent` asks of it."""


class BufferFault(WhorlError, RuntimeError):
    """A buffer, or a storage, a sampler or a lookup in it, breaks its contract (see `check_buffer`)."""


class TransformFault(WhorlError, RuntimeError):
    """A transform breaks its contract (see `check_transform`)."""
