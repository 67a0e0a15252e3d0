"""What the environments of a run are made from, when its folder is all that is left: what the folder says, and what it must not say."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from whorl.envs.env import Env, Kind
from whorl.envs.ids import check_no_token, is_url
from whorl.envs.make import EnvKind, EnvLike, Wrapper, check_harmless, kind_or_env, name_of, naming
from whorl.errors import BadInput
from whorl.json_text import shown
from whorl.presets import Preset
from whorl.training.settings import Settings
from whorl.transforms.chain import Chain, Spec, Transforms, chain

_log = logging.getLogger("whorl")


def source_of(
    path: Path,
    settings: Settings,
    env: EnvLike | None = None,
    env_kwargs: Mapping[str, object] | None = None,
    wrappers: Sequence[Wrapper] | None = None,
) -> EnvKind | Env:
    """What the environments of a run are made from: what is given here, and for the rest what its folder says.

    Raises BadInput for what the folder cannot say: an environment of the user's, wrappers, and options that it should not say.
    """
    if isinstance(env, str):
        check_no_token(env)
    if env is None and (settings.own_env or not settings.env):
        what = f"an environment of your own ({settings.env})" if settings.own_env else "data, with no environment named"
        how = "whorl.load(path, env=...) or whorl.resume(path, " + ("env=...)" if settings.own_env else "data=...)")
        raise BadInput(f"{path} was trained on {what}: pass one, {how}")
    if env is None and is_url(settings.env):
        raise BadInput(
            f"{path} was trained on a server, {shown(settings.env)}, and a run folder alone makes no connection: name the URL, "
            "whorl.load(path, env=URL) or whorl.resume(path, env=URL), --env URL on the command line"
        )
    kind = kind_or_env(settings.env if env is None else env)
    around = chain(harmless(settings.transforms, str(path / "config.json")))
    if isinstance(kind, Env):
        kind = kind_or_env(kind, env_kwargs, wrappers)
        assert isinstance(kind, Env)
        return kind if around is None else around.around(kind, training=False)
    if wrappers is None and settings.wrappers:
        raise BadInput(
            f"{path} was trained with wrappers around its environment ({', '.join(settings.wrappers)}), which its folder cannot make "
            "again: pass them, wrappers=[...]"
        )
    if env_kwargs is None and env is not None and not settings.own_env:
        _say_left_out(kind, settings.env_kwargs)
    elif env_kwargs is None:
        env_kwargs = settings.env_kwargs
        check_harmless(env_kwargs, str(path / "config.json"))
    return through(kind_or_env(kind.env, env_kwargs, wrappers), around)


def source_again(
    path: Path,
    settings: Settings,
    env: EnvLike | None = None,
    env_kwargs: Mapping[str, object] | None = None,
    wrappers: Sequence[Wrapper] | None = None,
) -> EnvKind | Env:
    """`source_of`, to train on in what the run was trained in. Raises BadInput for another environment, other options or wrappers."""
    moved = isinstance(env, str) and is_url(env) and is_url(settings.env)
    if env is not None and not settings.own_env and not moved:
        where = shown(settings.env) if settings.env else "data"
        raise BadInput(
            f"{path} was trained on {where} and goes on there: leave env out, which is for environments of your own and for the URL of a "
            f"server; got {shown(name_of(env))}"
        )
    if env_kwargs is not None and dict(env_kwargs) != settings.env_kwargs:
        raise BadInput(f"{path} was started with env_kwargs = {settings.env_kwargs}, got {dict(env_kwargs)}")
    given = tuple(map(name_of, wrappers or ()))
    if wrappers is not None and given != settings.wrappers:
        raise BadInput(
            f"{path} was started with the wrappers {', '.join(settings.wrappers) or '(none)'}, got {', '.join(given) or '(none)'}"
        )
    return source_of(path, settings, env, env_kwargs, wrappers)


def variant(known: Kind | None, env: EnvLike) -> EnvKind | Env:
    """What a policy is evaluated in, beside what it was trained in (`known`; None: an object). An object and an `EnvKind` are taken as
    they are; of an id, a class or a function environments are made with the same wrappers, and a line says so where they miss options."""
    kind = kind_or_env(env)
    if isinstance(kind, Env) or kind is env or not isinstance(known, EnvKind):
        return kind
    _say_left_out(kind, known.kwargs)
    return replace(kind, wrappers=known.wrappers, transforms=known.transforms)


def through(source: EnvKind | Env, transforms: Transforms | Chain | None) -> EnvKind | Env:
    """What environments are made from, with transforms around them. Raises BadInput for what makes no chain, and for an object."""
    around = transforms if isinstance(transforms, Chain) else chain(transforms)
    if around is None:
        return source
    if isinstance(source, Env):
        raise BadInput(
            "transforms go around environments that are made here, and this is an object: put them around it yourself, "
            "whorl.Transformed(env, ...)"
        )
    return replace(source, transforms=around)


def as_asked(source: EnvKind | Env, transforms: Transforms | None, preset: Preset) -> EnvKind | Env:
    """`through`, with those of the preset where nobody has said any."""
    if transforms is None and isinstance(source, EnvKind) and source.transforms is None:
        transforms = preset.transforms
    return through(source, transforms)


def written(source: EnvKind) -> tuple[object, ...]:
    """Its transforms as config.json holds them. Raises BadInput for one that has no name."""
    return tuple(source.transforms.written()) if isinstance(source.transforms, Chain) else ()


def harmless(specs: Sequence[object], where: str) -> tuple[Spec, ...]:
    """The specs of a chain, checked. Raises BadInput where a folder that may be a stranger's says what could name a file or a module."""
    found = list[Spec]()
    for spec in specs:
        if not isinstance(spec, str | Mapping):
            raise BadInput(f"{where}: a transform is a name or a table with one, got {spec!r:.60}")
        found.append(spec)
        if isinstance(spec, Mapping) and (named := naming({k: v for k, v in spec.items() if k != "name"})):
            raise BadInput(
                f"{where} says {named[0]} = {spec[named[0]]!r:.80} for its transform {spec.get('name')!r:.40}, which could name a file: "
                "if you trust it, make a new run with it"
            )
    return tuple(found)


def _say_left_out(kind: EnvKind, kwargs: Mapping[str, object]) -> None:
    if kwargs:
        _log.warning(
            "whorl: %s is made without the env_kwargs of the run, %s: whorl.load(path, env=..., env_kwargs=...) gives it some",
            kind.name,
            dict(kwargs),
        )
